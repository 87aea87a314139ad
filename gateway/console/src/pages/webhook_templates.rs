//! Ready-made settings for the systems that buyers use, with that system's own macros. The words in
//! brackets are theirs: they fill them in before they send.

use trueup_store::webhooks::StoredSettings;

pub struct PostbackTemplate {
    pub id: &'static str,
    pub name: &'static str,
    /// Where it goes in their system.
    pub place: &'static str,
    pub method: &'static str,
    pub text: String,
    pub note: &'static str,
    /// It has to carry a header, which a network that only knows URLs may not.
    pub needs_header: bool,
}

/// Where the webhook's secret is to stand in a request.
pub enum SecretPlace {
    /// None is required.
    Nowhere,
    Header,
    /// In the query, under this name.
    Query(String),
}

impl SecretPlace {
    pub fn of_settings(settings: &StoredSettings) -> SecretPlace {
        match (settings.require_secret, &settings.secret_query_param) {
            (false, _) => SecretPlace::Nowhere,
            (true, None) => SecretPlace::Header,
            (true, Some(param)) => SecretPlace::Query(param.clone()),
        }
    }

    /// What a query begins with.
    pub fn in_query(&self) -> String {
        match self {
            SecretPlace::Query(param) => format!("{param}=<the secret>&"),
            SecretPlace::Nowhere | SecretPlace::Header => String::new(),
        }
    }
}

/// `url` is the webhook's; the templates only add to it.
pub fn all_templates(url: &str, secret: &SecretPlace) -> Vec<PostbackTemplate> {
    let in_query = secret.in_query();
    let needs_header = matches!(secret, SecretPlace::Header);
    vec![
        PostbackTemplate {
            id: "ringba",
            name: "Ringba",
            place: "Integrations → Pixels → Create Pixel. Fire pixel on: Payout.",
            method: "GET",
            text: format!(
                "{url}?{in_query}caller_id=[tag:InboundNumber:Number]&duration=[tag:CallLength:Total]&payout=[Call:ConversionPayout]&ref_id=[tag:User:ref_id]"
            ),
            note: "Choose Payout, not Converted: on Converted the payout is not known yet and arrives blank. ref_id is the URL parameter under which you sent them your id; drop it if you send none.",
            needs_header,
        },
        PostbackTemplate {
            id: "trackdrive",
            name: "TrackDrive",
            place: "Company → Webhooks → New. Trigger: Buyer converted (or Call ended, to hear of calls that did not pay).",
            method: "GET",
            text: format!("{url}?{in_query}caller_id=[caller_id]&duration=[total_duration]&payout=[payout]&ref_id=[ref_id]"),
            note: "[ref_id] is the custom token in which your id arrives there.",
            needs_header,
        },
        PostbackTemplate {
            id: "marketcall",
            name: "MarketCall",
            place: "Ask your MarketCall contact to set this as the postback of your offer.",
            method: "GET",
            text: format!(
                "{url}?{in_query}pub_id={{pub_id}}&caller_id={{caller_id}}&duration={{duration}}&price={{price}}&currency={{currency}}&state={{state_en}}"
            ),
            note: "pub_id echoes the id that you sent with the call. MarketCall's own JSON (caller_id, duration, price, currency, state) is understood as it is, too: then give them the bare URL.",
            needs_header,
        },
        PostbackTemplate {
            id: "arroyo",
            name: "Arroyo",
            place: "Postback URL of the offer.",
            method: "GET",
            text: format!("{url}?{in_query}ref_id={{ref_id}}&caller={{caller}}&duration={{duration}}&payout_or_blank={{payout_or_blank}}"),
            note: "A blank payout_or_blank says nothing about money, and moves none; a 0 takes the credit back.",
            needs_header,
        },
        PostbackTemplate {
            id: "json",
            name: "Anything else (JSON)",
            place: "POST to the URL, Content-Type: application/json. A form or a query string with the same names does as well.",
            method: "POST",
            text: "{\n  \"caller_id\": \"+13055551234\",\n  \"duration\": 90,\n  \"payout\": 50,\n  \"ref_id\": \"abc123\"\n}".to_owned(),
            note: "ref_id is the surest: the id you sent with the call, echoed back. Without it the caller and the duration find the call.",
            needs_header,
        },
    ]
}
