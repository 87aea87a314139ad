//! Which regions and currencies an account may keep its books in.

/// True for an ISO 3166 region that has telephone numbers (X9), such as `US`.
pub fn is_region(code: &str) -> bool {
    phonenumber::metadata::DATABASE.by_id(code).is_some()
}

/// True for a currency of ISO 4217 that is in use, such as `USD`.
pub fn is_currency(code: &str) -> bool {
    code.len() == 3
        && CURRENCIES
            .split_ascii_whitespace()
            .any(|known| known == code)
}

const CURRENCIES: &str = "
    AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF
    CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG
    HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA
    MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD
    RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX
    USD UYU UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_known_in_upper_case_only() {
        assert!(
            is_region("US")
                && is_region("DE")
                && !is_region("us")
                && !is_region("XX")
                && !is_region("")
        );
        assert!(
            is_currency("USD")
                && is_currency("ZWG")
                && !is_currency("usd")
                && !is_currency("XXX")
                && !is_currency("")
        );
    }
}
