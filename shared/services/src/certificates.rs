//! A CA of a test's own, and what it has signed, made by `openssl`: TLS is tried against servers that are
//! vouched for, and against those that are not.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::unistd::User;

use crate::find_program;
use crate::folder::Folder;
use crate::process::output;

/// A certificate and its key, each a PEM file.
pub struct KeyPair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl KeyPair {
    /// Both in one file beside them, as our processes take a certificate of theirs.
    pub fn joined(&self) -> Result<PathBuf> {
        let path = self.certificate.with_extension("joined.pem");
        let mut text = std::fs::read_to_string(&self.certificate)?;
        text.push_str(&std::fs::read_to_string(&self.key)?);
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// A copy that a server of that user may read, and nobody else its key.
    pub fn copy_for(&self, folder: &Path, owner: Option<&User>) -> Result<KeyPair> {
        let copy = KeyPair {
            certificate: copy_file(&self.certificate, folder, owner)?,
            key: copy_file(&self.key, folder, owner)?,
        };
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&copy.key, std::fs::Permissions::from_mode(0o600))?;
        Ok(copy)
    }
}

pub fn copy_file(file: &Path, folder: &Path, owner: Option<&User>) -> Result<PathBuf> {
    let copy = folder.join(file.file_name().context("a file's name")?);
    std::fs::copy(file, &copy)?;
    if let Some(user) = owner {
        std::os::unix::fs::chown(&copy, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    }
    Ok(copy)
}

/// An authority that nobody else trusts.
pub struct CertificateAuthority {
    own: KeyPair,
    folder: Folder,
}

impl CertificateAuthority {
    pub fn make() -> Result<CertificateAuthority> {
        // The number makes the folder's name its own.
        let folder = Folder::make("ca", crate::spare_port()?, None)?;
        let own = KeyPair {
            certificate: folder.path.join("ca.pem"),
            key: folder.path.join("ca.key"),
        };
        let mut make = openssl()?;
        make.args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
            .args(["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=Trueup test CA", "-keyout"])
            .arg(&own.key)
            .arg("-out")
            .arg(&own.certificate)
            .args(["-addext", "keyUsage=critical,keyCertSign,cRLSign"]);
        output(make)?;
        Ok(CertificateAuthority { own, folder })
    }

    /// Its own certificate, as our processes are given it.
    pub fn certificate(&self) -> &Path {
        &self.own.certificate
    }

    /// For a server or a client of that DNS name (`localhost`, say).
    pub fn sign(&self, name: &str) -> Result<KeyPair> {
        let file = |end: &str| self.folder.path.join(format!("{name}.{end}"));
        let pair = KeyPair {
            certificate: file("pem"),
            key: file("key"),
        };
        let mut request = openssl()?;
        request
            .args(["req", "-newkey", "ec", "-pkeyopt"])
            .args(["ec_paramgen_curve:prime256v1", "-nodes", "-subj"])
            .arg(format!("/CN={name}"))
            .arg("-keyout")
            .arg(&pair.key)
            .arg("-out")
            .arg(file("csr"));
        output(request)?;
        let extensions = format!(
            "subjectAltName=DNS:{name}\nextendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=CA:FALSE\n"
        );
        std::fs::write(file("ext"), extensions)?;
        let mut sign = openssl()?;
        sign.args(["x509", "-req", "-days", "2", "-CAcreateserial", "-in"])
            .arg(file("csr"))
            .arg("-CA")
            .arg(&self.own.certificate)
            .arg("-CAkey")
            .arg(&self.own.key)
            .arg("-extfile")
            .arg(file("ext"))
            .arg("-out")
            .arg(&pair.certificate);
        output(sign)?;
        Ok(pair)
    }
}

fn openssl() -> Result<Command> {
    Ok(Command::new(
        find_program("openssl").context("openssl is not installed")?,
    ))
}
