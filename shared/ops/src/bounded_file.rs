//! Files that settings name: secrets and certificates. A file that is not there may still come (a secret is
//! mounted late), so that alone is no bad setting.

use std::io::ErrorKind;

use crate::exit::ExitReason;

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// To be tried again: whoever restarts the process may find it then.
    #[error("there is no such file")]
    Missing,
    #[error("{0}")]
    Bad(String),
}

impl FileError {
    /// A file of `limit` bytes at most.
    pub fn read(path: &str, limit: u64) -> Result<Vec<u8>, FileError> {
        let failed = |e: std::io::Error| match e.kind() {
            ErrorKind::NotFound => FileError::Missing,
            _ => FileError::Bad(e.to_string()),
        };
        let length = std::fs::metadata(path).map_err(failed)?.len();
        if length > limit {
            return Err(FileError::Bad(format!(
                "the file has {length} bytes, the limit is {limit}"
            )));
        }
        std::fs::read(path).map_err(failed)
    }

    pub fn exit(&self) -> ExitReason {
        match self {
            FileError::Missing => ExitReason::Unavailable,
            FileError::Bad(_) => ExitReason::BadConfig,
        }
    }
}
