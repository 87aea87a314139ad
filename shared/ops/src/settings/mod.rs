//! Reading the settings, before anything else is done and before any port is bound.
//!
//! A setting is a flag, else the environment variable, else what the file named by `NAME_FILE`
//! holds, else the default. An unknown `TRUEUP_…` variable is an error: a misspelt setting that is
//! silently ignored is found out when it hurts. (Those of [`service_links`] are nobody's.) It refuses to start on anything doubtful, and never
//! shows a password. The names themselves are in [`args`] and nowhere else.

mod args;
pub mod check;
pub mod postgres_url;
mod service_links;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::sync::OnceLock;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args as _, Command, Parser};

pub use args::{
    AmqpArgs, CeilingArgs, ConsoleArgs, GatewayArgs, GraceArgs, LogArgs, LogFormat, PostgresArgs,
    Proxies, RedisArgs, RedisDown, StartArgs, WorkerArgs,
};

use crate::bounded_file::FileError;
use crate::exit::ExitReason;

/// Every variable of Trueup starts with it.
const PREFIX: &str = "TRUEUP_";
/// `TRUEUP_POSTGRES_URL_FILE` names a file that holds `TRUEUP_POSTGRES_URL`.
const FILE_SUFFIX: &str = "_FILE";
/// A secret is a line; a file above this is not one (bytes).
const FILE_LIMIT: u64 = 64 * 1024;
/// Settings of this many letters' difference are taken for a slip of the pen.
const NEAREST_WITHIN: usize = 5;

/// One setting as the outside sees it: for the documentation and its tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingDefinition {
    pub variable: String,
    pub flag: String,
    pub default: Option<String>,
    pub help: String,
}

/// Every setting of every Trueup process, by name.
pub fn all_settings() -> Vec<SettingDefinition> {
    let mut found: Vec<SettingDefinition> = every_arg()
        .get_arguments()
        .filter_map(|arg| {
            Some(SettingDefinition {
                variable: arg.get_env()?.to_str()?.to_owned(),
                flag: format!("--{}", arg.get_long()?),
                default: arg
                    .get_default_values()
                    .first()
                    .map(|v| v.to_string_lossy().into_owned()),
                help: arg.get_help().map(ToString::to_string).unwrap_or_default(),
            })
        })
        .collect();
    found.sort_by(|a, b| a.variable.cmp(&b.variable));
    found
}

fn every_arg() -> Command {
    let mut command = Command::new("every");
    command = PostgresArgs::augment_args(command);
    command = AmqpArgs::augment_args(command);
    command = RedisArgs::augment_args(command);
    command = LogArgs::augment_args(command);
    command = GraceArgs::augment_args(command);
    command = StartArgs::augment_args(command);
    command = GatewayArgs::augment_args(command);
    command = ConsoleArgs::augment_args(command);
    WorkerArgs::augment_args(command)
}

/// Why the settings cannot be used, in a sentence that names the variable and the way out.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct BadConfig {
    text: String,
    exit: ExitReason,
}

impl BadConfig {
    /// For what only the binary can check (a directory that cannot be written, say).
    pub fn new(variable: &str, why_and_fix: impl std::fmt::Display) -> Self {
        let why_and_fix = why_and_fix.to_string();
        BadConfig::of(format!("{variable}: {}", check::redact(&why_and_fix)))
    }

    fn of(text: String) -> Self {
        BadConfig {
            text,
            exit: ExitReason::BadConfig,
        }
    }

    /// How the process ends: 64, or 69 where nothing is wrong but that a file is not there yet.
    pub fn exit(&self) -> ExitReason {
        self.exit
    }

    /// Says so on the error stream and ends the process.
    pub fn print_and_exit(&self) -> ! {
        eprintln!("error: {self}");
        std::process::exit(self.exit.code().into())
    }
}

/// The settings of this process, or its end: 64 for bad ones, 0 after `--help` and `--version`.
pub fn parse_settings<T: Parser>() -> T {
    let environment: Vec<_> = std::env::vars_os().collect();
    match parse_from(std::env::args_os().collect(), &environment) {
        Ok(Parsed::Settings(settings)) => *settings,
        Ok(Parsed::Help(text)) => {
            use std::io::Write as _;
            let _ = std::io::stdout().write_all(text.as_bytes());
            std::process::exit(0)
        }
        Err(bad) => bad.print_and_exit(),
    }
}

/// What was set other than by default, as it may be shown; empty until [`parse_from`] has read it.
static GIVEN: OnceLock<String> = OnceLock::new();

/// What was set other than by default, with no secret in it.
pub fn given() -> &'static str {
    GIVEN.get().map_or("", String::as_str)
}

/// Of each setting of a command: its id, its variable, and whether its value is a secret.
fn list_named(command: &Command) -> Vec<(String, String, bool)> {
    let arguments = command.get_arguments();
    let named = arguments.filter_map(|arg| {
        let variable = arg.get_env()?.to_str()?.to_owned();
        let id = arg.get_id().to_string();
        Some((id, variable, arg.is_hide_env_values_set()))
    });
    named.collect()
}

fn describe_given(named: &[(String, String, bool)], matches: &ArgMatches) -> String {
    let given = named.iter().filter_map(|(id, variable, is_secret)| {
        if matches.value_source(id) != Some(ValueSource::CommandLine) {
            return None;
        }
        let value = matches.get_raw(id)?.next_back()?.to_string_lossy();
        // Of a URL the password alone is one.
        let shown = if *is_secret && !value.contains("://") {
            "(not shown)".to_owned()
        } else {
            check::redact(&value)
        };
        Some(format!("{variable}={shown}"))
    });
    given.collect::<Vec<_>>().join(" ")
}

/// What `check-config` says on standard output when nothing is wrong.
pub fn print_good() {
    use std::io::Write as _;
    // A closed pipe is no failure of the command.
    let _ = writeln!(std::io::stdout(), "the settings are good");
}

/// What a command line came to.
#[derive(Debug)]
pub enum Parsed<T> {
    Settings(Box<T>),
    /// `--help` or `--version`: a text to print, and nothing to run.
    Help(String),
}

/// [`parse_settings`] with everything given: reads no environment but the one passed in.
pub fn parse_from<T: Parser>(
    mut argv: Vec<OsString>,
    environment: &[(OsString, OsString)],
) -> Result<Parsed<T>, BadConfig> {
    let command = T::command();
    let name = command.get_name().to_owned();
    let given = from_environment(environment)?;

    // The environment is put before the flags, as flags: a flag that is given again wins.
    let mut at = 1.min(argv.len());
    if argv.is_empty() {
        argv.push(name.into());
        at = 1;
    }
    for arg in command.get_arguments() {
        let (Some(variable), Some(long)) = (arg.get_env().and_then(|v| v.to_str()), arg.get_long())
        else {
            continue;
        };
        if let Some(value) = given.get(variable) {
            let mut flag = OsString::from(format!("--{long}="));
            flag.push(value);
            argv.insert(at, flag);
            at += 1;
        }
    }

    let named = list_named(&command);
    let asks_for_help = argv
        .iter()
        .any(|a| a == "--help" || a == "-h" || a == "help");
    let mut command = command.args_override_self(true);
    if !asks_for_help {
        // So that clap does not read the process's environment a second time, blank values and all.
        command = command.mut_args(|arg| arg.env(None::<&'static str>));
    }
    let parsed = command
        .try_get_matches_from_mut(argv)
        .and_then(|mut matches| {
            let _ = GIVEN.set(describe_given(&named, &matches));
            T::from_arg_matches_mut(&mut matches)
        });
    match parsed {
        Ok(settings) => Ok(Parsed::Settings(Box::new(settings))),
        Err(e) if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            Ok(Parsed::Help(e.render().to_string()))
        }
        Err(e) => Err(explain_error(&e)),
    }
}

/// The variables that are set, those of `NAME_FILE` read in; blank ones count as not set.
fn from_environment(
    environment: &[(OsString, OsString)],
) -> Result<BTreeMap<String, OsString>, BadConfig> {
    let known: Vec<String> = all_settings().into_iter().map(|s| s.variable).collect();
    let mut values = BTreeMap::new();
    let mut files = BTreeMap::new();
    for (variable, value) in environment {
        let Some(variable) = variable.to_str().filter(|v| v.starts_with(PREFIX)) else {
            continue;
        };
        let Some(text) = value.to_str() else {
            return Err(BadConfig::of(format!(
                "{variable} is no text in UTF-8; write it again"
            )));
        };
        if known.iter().any(|k| k == variable) {
            if !value.is_empty() {
                values.insert(variable.to_owned(), value.clone());
            }
        } else if let Some(of) = variable
            .strip_suffix(FILE_SUFFIX)
            .filter(|of| known.iter().any(|k| k == of))
        {
            if !value.is_empty() {
                files.insert(of.to_owned(), value.clone());
            }
        } else if !service_links::is_service_link(variable, text) {
            return Err(unknown_variable(variable, &known));
        }
    }
    for (variable, path) in files {
        if values.contains_key(&variable) {
            return Err(BadConfig::of(format!(
                "{variable} and {variable}{FILE_SUFFIX} are both set; keep one of them"
            )));
        }
        values.insert(variable.clone(), read_file(&variable, &path)?);
    }
    Ok(values)
}

fn unknown_variable(variable: &str, known: &[String]) -> BadConfig {
    let (name, suffix) = match variable.strip_suffix(FILE_SUFFIX) {
        Some(name) => (name, FILE_SUFFIX),
        None => (variable, ""),
    };
    let nearest = known
        .iter()
        .map(|known| (strsim::levenshtein(name, known), known))
        .min();
    let mut text = format!("{variable} is no setting of Trueup");
    match nearest {
        Some((letters, near)) if letters <= NEAREST_WITHIN => {
            let _ = write!(
                text,
                "; did you mean {near}{suffix}? Rename it, or unset it"
            );
        }
        Some((_, near)) => {
            let _ = write!(
                text,
                "; unset it (the nearest name is {near}; deploy/docs/SETTINGS.md lists them all)"
            );
        }
        None => text.push_str("; unset it"),
    }
    BadConfig::of(text)
}

fn read_file(variable: &str, path: &OsString) -> Result<OsString, BadConfig> {
    let path = path.to_string_lossy();
    let bad = |error: FileError| BadConfig {
        text: format!(
            "{variable}{FILE_SUFFIX} is {path}: {error}; it must name a readable file that holds the value"
        ),
        exit: error.exit(),
    };
    let bytes = FileError::read(&path, FILE_LIMIT).map_err(bad)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| bad(FileError::Bad("the file is no text in UTF-8".into())))?;
    let value = text.trim_end_matches(['\n', '\r']);
    if value.is_empty() {
        return Err(bad(FileError::Bad("the file is empty".into())));
    }
    Ok(value.into())
}

/// Turns clap's error into one that names the variable and shows no secret.
fn explain_error(error: &clap::Error) -> BadConfig {
    let arg = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(arg)) => arg.clone(),
        _ => String::new(),
    };
    let value = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) => value.clone(),
        _ => String::new(),
    };
    let flag = arg.split([' ', '=']).next().unwrap_or_default();
    let every = every_arg();
    let of = every
        .get_arguments()
        .find(|a| a.get_long().is_some_and(|long| flag == format!("--{long}")));
    match (error.kind(), of) {
        (ErrorKind::ValueValidation | ErrorKind::InvalidValue, Some(of)) => {
            let variable = of.get_env().unwrap_or_default().to_string_lossy();
            let shown = if of.is_hide_env_values_set() && !value.contains("://") {
                "(not shown)".to_owned()
            } else {
                format!("{:?}", check::redact(&value))
            };
            let source = std::error::Error::source(error);
            let why = source.map_or_else(|| possible_values(error), ToString::to_string);
            let text = format!("{variable} ({flag}) is {shown}: {}", check::redact(&why));
            let of_file = source.and_then(|source| source.downcast_ref::<FileError>());
            let exit = of_file.map_or(ExitReason::BadConfig, FileError::exit);
            BadConfig { text, exit }
        }
        _ => BadConfig::of(
            check::redact(error.render().to_string().trim())
                .trim_start_matches("error: ")
                .to_owned(),
        ),
    }
}

fn possible_values(error: &clap::Error) -> String {
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) => format!("give one of {}", values.join(", ")),
        _ => "this is no value for it".into(),
    }
}

#[cfg(test)]
mod tests;
