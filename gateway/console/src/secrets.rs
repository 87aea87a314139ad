//! Makes what is random and secret: API keys, webhook tokens, webhook secrets. Each is shown once.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRng;

/// 256 bits for keys and secrets, 192 for tokens (the contract asks for 128 or more).
const KEY_BYTES: usize = 32;
const TOKEN_BYTES: usize = 24;

/// As much of a key as its list shows: the mark and six characters.
const PREFIX_CHARS: usize = 10;

fn random_text<const N: usize>() -> String {
    let mut bytes = [0_u8; N];
    rand::rngs::SysRng
        .try_fill_bytes(&mut bytes)
        .expect("without the system's randomness nothing secret can be made");
    URL_SAFE_NO_PAD.encode(bytes)
}

/// An API key, and the part of it that may be shown again.
pub fn api_key() -> (String, String) {
    let key = format!("tuk_{}", random_text::<KEY_BYTES>());
    let prefix = key[..PREFIX_CHARS].to_owned();
    (key, prefix)
}

/// The last part of a webhook's URL; safe in a path as it is.
pub fn new_token() -> String {
    random_text::<TOKEN_BYTES>()
}

pub fn webhook_secret() -> String {
    format!("whsec_{}", random_text::<KEY_BYTES>())
}

/// What a browser is known by while somebody is signed in.
pub fn new_session_id() -> String {
    random_text::<KEY_BYTES>()
}
