//! TLS towards a service: whose certificates are believed, and what we show of ourselves.
//!
//! A CA's file of one's own takes the place of the machine's roots: a private service is vouched for by its
//! own CA and by nobody else. It refuses a file that it cannot use when the settings are read, and never
//! shows a key.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::bounded_file::FileError;

/// A chain or a bundle of roots; a file above this is neither (bytes).
const FILE_LIMIT: u64 = 1024 * 1024;

/// Certificates of the authorities that vouch for a service, as they stood in a PEM file.
#[derive(Clone)]
pub struct CaFile {
    pem: Arc<[u8]>,
    certificates: Arc<[CertificateDer<'static>]>,
}

impl CaFile {
    pub fn read(path: &str) -> Result<CaFile, FileError> {
        let pem = FileError::read(path, FILE_LIMIT)?;
        let certificates = parse_certificates(&pem)?;
        let mut store = RootCertStore::empty();
        for certificate in &certificates {
            store
                .add(certificate.clone())
                .map_err(|e| FileError::Bad(format!("a certificate cannot be read: {e}")))?;
        }
        Ok(CaFile {
            pem: pem.into(),
            certificates: certificates.into(),
        })
    }

    pub fn pem(&self) -> &[u8] {
        &self.pem
    }
}

impl fmt::Debug for CaFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CaFile({} certificates)", self.certificates.len())
    }
}

/// Our own certificate with its chain, and its key, from one PEM file.
#[derive(Clone)]
pub struct ClientCertificate {
    pem: Arc<[u8]>,
}

impl ClientCertificate {
    pub fn read(path: &str) -> Result<ClientCertificate, FileError> {
        let pem = FileError::read(path, FILE_LIMIT)?;
        parse_certificates(&pem)?;
        PrivateKeyDer::from_pem_slice(&pem).map_err(|e| {
            FileError::Bad(format!(
                "it must hold the certificate and its key, both as PEM: {e}"
            ))
        })?;
        Ok(ClientCertificate { pem: pem.into() })
    }

    /// Of the certificates and of the key: they stand in one file.
    pub fn pem(&self) -> &[u8] {
        &self.pem
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientCertificate(not shown)")
    }
}

fn parse_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|e| FileError::Bad(format!("it is no PEM: {e}")))?;
    if certificates.is_empty() {
        return Err(FileError::Bad(
            "it holds no certificate; a PEM file is needed (-----BEGIN CERTIFICATE-----)".into(),
        ));
    }
    Ok(certificates)
}

/// What the settings say of TLS towards one service.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// None: the machine's own roots.
    pub ca: Option<CaFile>,
    pub client: Option<ClientCertificate>,
}

impl TlsFiles {
    pub fn is_empty(&self) -> bool {
        self.ca.is_none() && self.client.is_none()
    }

    /// Whom we believe.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let believed = match &self.ca {
            Some(ca) => ca.certificates.to_vec(),
            None => rustls_native_certs::load_native_certs().certs,
        };
        for certificate in believed {
            // A root that rustls cannot read is one it could never have trusted.
            let _ = roots.add(certificate);
        }
        roots
    }

    /// The service has to prove its chain and its name.
    pub fn client_config(&self) -> Result<ClientConfig, rustls::Error> {
        let builder = config_builder()?.with_root_certificates(self.roots());
        self.with_client_certificate(builder)
    }

    /// What the service has to prove is the verifier's business.
    pub fn config_with_verifier(
        &self,
        verifier: Arc<dyn ServerCertVerifier>,
    ) -> Result<ClientConfig, rustls::Error> {
        let builder = config_builder()?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        self.with_client_certificate(builder)
    }

    fn with_client_certificate(
        &self,
        builder: rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>,
    ) -> Result<ClientConfig, rustls::Error> {
        let Some(client) = &self.client else {
            return Ok(builder.with_no_client_auth());
        };
        let bad = |e: rustls::pki_types::pem::Error| rustls::Error::General(e.to_string());
        let chain = CertificateDer::pem_slice_iter(&client.pem)
            .collect::<Result<_, _>>()
            .map_err(bad)?;
        let key = PrivateKeyDer::from_pem_slice(&client.pem).map_err(bad)?;
        builder.with_client_auth_cert(chain, key)
    }
}

fn config_builder()
-> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
}

/// What to do about a service whose proof we did not accept; `None` if an error tells of no such thing. The
/// drivers hand rustls' error on as text.
pub fn advise(error: &str, ca_setting: &str) -> Option<String> {
    let (_, why) = error.split_once("invalid peer certificate: ")?;
    // A bad signature is another CA's of the same name: one that was made anew, say.
    let is_of_nobody = ["UnknownIssuer", "BadSignature"]
        .iter()
        .any(|kind| why.starts_with(kind));
    let advice = if is_of_nobody {
        format!(
            "nobody who is trusted here has signed its certificate; name its CA's certificate (a PEM file) in {ca_setting}"
        )
    } else if why.contains("not valid for name") || why.starts_with("NotValidForName") {
        "its certificate is for another name; connect by a name that stands in it, or give the service one \
         that has this name"
            .to_owned()
    } else {
        "its certificate is not accepted; give the service another one".to_owned()
    };
    Some(advice)
}
