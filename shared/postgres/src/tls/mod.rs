//! TLS to Postgres: from what the URL and the settings say, the driver's own mode and what a server's
//! certificate must prove. Which of both is asked for is decided in `trueup_ops::settings::postgres_url`.

mod verifiers;

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::WebPkiServerVerifier;
use tokio_postgres::config::{Config, Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;
use trueup_ops::settings::postgres_url::{PostgresUrl, ServerProof, are_local, required_proof};
use trueup_ops::tls::{CaFile, TlsFiles};

use crate::error::StoreError;
use verifiers::{AnyCertificate, ChainOnly};

/// The driver's settings of a URL, and how it has to speak TLS with it.
pub fn read_url(url: &str, files: &TlsFiles) -> Result<(Config, MakeRustlsConnect), StoreError> {
    let unreadable =
        |why: String| StoreError::Unreachable(format!("the Postgres URL cannot be read: {why}"));
    let split = PostgresUrl::split(url).map_err(unreadable)?;
    let mut config: Config = split
        .for_driver
        .parse()
        .map_err(|e: tokio_postgres::Error| unreadable(e.to_string()))?;
    let mut files = files.clone();
    match split.root_certificate.as_deref() {
        None => {}
        Some(_) if files.ca.is_some() => {
            return Err(unreadable(
                "sslrootcert and TRUEUP_POSTGRES_CA_FILE are both given; keep one of them".into(),
            ));
        }
        Some(path) => {
            let ca = CaFile::read(path);
            files.ca = Some(ca.map_err(|e| unreadable(format!("sslrootcert is {path}: {e}")))?);
        }
    }
    let proof = required_proof(split.mode, is_local(&config), files.ca.is_some());
    config.ssl_mode(match proof {
        // Nothing is between two processes of one machine, and the driver knows no TLS on a socket's path.
        _ if has_socket_path_only(&config) => SslMode::Disable,
        ServerProof::Plain => SslMode::Disable,
        ServerProof::IfOffered | ServerProof::ChainIfOffered => SslMode::Prefer,
        ServerProof::Unproven | ServerProof::Chain | ServerProof::ChainAndName => SslMode::Require,
    });
    let connector = client_config(&files, proof)
        .map_err(|e| StoreError::Unreachable(format!("TLS cannot be set up: {e}")))?;
    Ok((config, MakeRustlsConnect::new(connector)))
}

fn is_local(config: &Config) -> bool {
    let hosts = config.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.as_str(),
        Host::Unix(_) => "/",
    });
    let addresses: Vec<String> = config
        .get_hostaddrs()
        .iter()
        .map(ToString::to_string)
        .collect();
    are_local(hosts) && are_local(addresses.iter().map(String::as_str))
}

fn has_socket_path_only(config: &Config) -> bool {
    let hosts = config.get_hosts();
    !hosts.is_empty() && hosts.iter().all(|host| matches!(host, Host::Unix(_)))
}

fn client_config(
    files: &TlsFiles,
    proof: ServerProof,
) -> Result<ClientConfig, Box<dyn std::error::Error>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(match proof {
        ServerProof::ChainAndName => files.client_config()?,
        ServerProof::Chain | ServerProof::ChainIfOffered => {
            let roots = Arc::new(files.roots());
            let whole = WebPkiServerVerifier::builder_with_provider(roots, provider).build()?;
            files.config_with_verifier(Arc::new(ChainOnly::new(whole)))?
        }
        ServerProof::Plain | ServerProof::IfOffered | ServerProof::Unproven => {
            files.config_with_verifier(Arc::new(AnyCertificate::new(&provider)))?
        }
    })
}
