//! What a Postgres URL says of TLS. The driver knows three of the modes that Postgres' own documentation
//! names, so they are read here, and the driver is given the rest of the URL.

use crate::network;

/// libpq's word for the machine's own roots, which are the default here.
const SYSTEM_ROOTS: &str = "system";

/// `sslmode`, as libpq names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl TlsMode {
    fn parse(text: &str) -> Result<TlsMode, String> {
        Ok(match text {
            "disable" => TlsMode::Disable,
            "prefer" => TlsMode::Prefer,
            "require" => TlsMode::Require,
            "verify-ca" => TlsMode::VerifyCa,
            "verify-full" => TlsMode::VerifyFull,
            _ => {
                return Err(format!(
                    "sslmode={text} is not known; give one of disable, prefer, require, verify-ca, verify-full"
                ));
            }
        })
    }
}

#[derive(Debug)]
pub struct PostgresUrl {
    /// Without what is read here.
    pub for_driver: String,
    pub mode: Option<TlsMode>,
    /// `sslrootcert`: the path of a CA's certificate.
    pub root_certificate: Option<String>,
}

impl PostgresUrl {
    pub fn split(url: &str) -> Result<PostgresUrl, String> {
        let mut split = PostgresUrl {
            for_driver: url.to_owned(),
            mode: None,
            root_certificate: None,
        };
        // As the driver reads it: a password may hold a '?', and ends with the first '@'.
        let after_user = url.find('@').unwrap_or_default();
        let Some(at) = url[after_user..].find('?') else {
            return Ok(split);
        };
        let (base, query) = url.split_at(after_user + at);
        let mut rest = Vec::new();
        for pair in query.trim_start_matches('?').split('&') {
            match pair.split_once('=') {
                Some(("sslmode", mode)) => split.mode = Some(TlsMode::parse(mode)?),
                Some(("sslrootcert", SYSTEM_ROOTS)) => {}
                Some(("sslrootcert", path)) if path.contains('%') => {
                    return Err("sslrootcert is a path, to be given without any '%'".into());
                }
                Some(("sslrootcert", path)) => split.root_certificate = Some(path.to_owned()),
                _ => rest.push(pair),
            }
        }
        split.for_driver = match rest.join("&") {
            none if none.is_empty() => base.to_owned(),
            rest => format!("{base}?{rest}"),
        };
        Ok(split)
    }
}

/// What a server must prove, and whether a server without TLS will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerProof {
    /// No TLS.
    Plain,
    /// TLS if it has any; no proof.
    IfOffered,
    /// TLS if it has any, by a chain that we believe.
    ChainIfOffered,
    /// TLS; no proof.
    Unproven,
    Chain,
    ChainAndName,
}

/// A server that is not on this machine proves its chain and its name, unless the URL says otherwise. On this
/// machine nobody is in between, and packages make servers with a certificate that nobody signed; but who
/// names a CA wants it asked.
pub fn required_proof(mode: Option<TlsMode>, is_local: bool, has_ca: bool) -> ServerProof {
    match mode {
        None if is_local && !has_ca => ServerProof::IfOffered,
        None | Some(TlsMode::VerifyFull) => ServerProof::ChainAndName,
        Some(TlsMode::Disable) => ServerProof::Plain,
        Some(TlsMode::Prefer) if has_ca => ServerProof::ChainIfOffered,
        Some(TlsMode::Prefer) => ServerProof::IfOffered,
        Some(TlsMode::VerifyCa) => ServerProof::Chain,
        Some(TlsMode::Require) if !is_local => ServerProof::ChainAndName,
        Some(TlsMode::Require) if has_ca => ServerProof::Chain,
        Some(TlsMode::Require) => ServerProof::Unproven,
    }
}

/// Every host of a URL is this machine.
pub fn are_local<'a>(hosts: impl IntoIterator<Item = &'a str>) -> bool {
    hosts.into_iter().all(network::is_this_machine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tells_of_tls_is_taken_out_of_the_url_and_the_rest_stays() {
        let split = PostgresUrl::split(
            "postgres://u:p?w@h/db?sslmode=verify-full&a=1&sslrootcert=/etc/ca.pem",
        )
        .expect("good");
        assert_eq!(split.for_driver, "postgres://u:p?w@h/db?a=1");
        assert_eq!(split.mode, Some(TlsMode::VerifyFull));
        assert_eq!(split.root_certificate.as_deref(), Some("/etc/ca.pem"));
        let system = PostgresUrl::split("postgres://h/db?sslrootcert=system").expect("good");
        assert_eq!(system.root_certificate, None);
        let plain = PostgresUrl::split("postgres://h/db?sslmode=disable").expect("good");
        assert_eq!(plain.for_driver, "postgres://h/db");
        let error = PostgresUrl::split("postgres://h/db?sslmode=on").expect_err("not known");
        assert!(error.contains("verify-full"), "{error}");
    }

    #[test]
    fn who_is_not_local_is_proven_unless_the_url_says_otherwise() {
        let elsewhere = |mode| required_proof(mode, false, false);
        assert_eq!(elsewhere(None), ServerProof::ChainAndName);
        assert_eq!(elsewhere(Some(TlsMode::Require)), ServerProof::ChainAndName);
        assert_eq!(elsewhere(Some(TlsMode::VerifyCa)), ServerProof::Chain);
        assert_eq!(elsewhere(Some(TlsMode::Disable)), ServerProof::Plain);
        assert_eq!(elsewhere(Some(TlsMode::Prefer)), ServerProof::IfOffered);
        let here = |mode| required_proof(mode, true, false);
        assert_eq!(here(None), ServerProof::IfOffered);
        assert_eq!(here(Some(TlsMode::Require)), ServerProof::Unproven);
        assert_eq!(here(Some(TlsMode::VerifyFull)), ServerProof::ChainAndName);
        assert_eq!(required_proof(None, true, true), ServerProof::ChainAndName);
    }

    #[test]
    fn this_machine_is_local_and_a_name_like_it_is_not() {
        for (host, local) in [
            ("localhost", true),
            ("127.0.0.9", true),
            ("::1", true),
            ("/var/run/postgresql", true),
            ("db-1", false),
            ("10.0.0.1", false),
            ("localhost.example.com", false),
        ] {
            assert_eq!(are_local([host]), local, "{host}");
        }
        assert!(!are_local(["localhost", "db-1"]));
    }
}
