//! What a request says (X1 to X9).

use super::event::RawRequest;
use super::report::{ReadSettings, Reading, Report};

pub fn read(_request: &RawRequest, _settings: &ReadSettings) -> Reading {
    Reading { report: Ok(Report::default()), slots: Vec::new() }
}
