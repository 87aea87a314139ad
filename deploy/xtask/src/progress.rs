//! Shows that work is going on: anything that takes over a second says what it is and how long it
//! has been at it. On a terminal one line is rewritten; elsewhere a line comes every ten seconds.

use std::io::{IsTerminal, Write};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;

/// How often the line is rewritten on a terminal.
const TICK: Duration = Duration::from_secs(1);
/// How often a step says so where there is no terminal (a log should stay readable).
const TICK_IN_A_LOG: Duration = Duration::from_secs(10);

/// A step in progress; tells what it is busy with just now. Its lock is std's: this tool is built before
/// everything else and brings no crate for that.
#[derive(Clone, Default)]
pub struct Note(Arc<Mutex<String>>);

impl Note {
    pub fn set(&self, text: impl Into<String>) {
        if let Ok(mut note) = self.0.lock() {
            *note = text.into();
        }
    }

    fn get(&self) -> String {
        self.0.lock().map(|note| note.clone()).unwrap_or_default()
    }
}

/// Runs `work`, showing its name and the time it takes.
pub fn step<T>(name: &str, work: impl FnOnce(&Note) -> Result<T>) -> Result<T> {
    let began = Instant::now();
    let note = Note::default();
    let ticker = Ticker::start(name.to_owned(), note.clone(), began);
    let result = work(&note);
    ticker.stop();
    let mark = if result.is_ok() { "ok  " } else { "FAIL" };
    println!("{mark} {name} ({})", seconds(began.elapsed()));
    result
}

pub fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(100) {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} min {:02} s", time.as_secs() / 60, time.as_secs() % 60)
    }
}

struct Ticker {
    stop: SyncSender<()>,
    thread: JoinHandle<()>,
}

impl Ticker {
    fn start(name: String, note: Note, began: Instant) -> Self {
        let (stop, stopped) = sync_channel::<()>(1);
        let terminal = std::io::stdout().is_terminal();
        let every = if terminal { TICK } else { TICK_IN_A_LOG };
        let thread = std::thread::spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(every) {
                let line = line(&name, &note.get(), began.elapsed());
                if terminal {
                    print!("\r\x1b[2K{line}");
                    let _ = std::io::stdout().flush();
                } else {
                    println!("{line}");
                }
            }
            if terminal {
                print!("\r\x1b[2K");
                let _ = std::io::stdout().flush();
            }
        });
        Ticker { stop, thread }
    }

    fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

fn line(name: &str, note: &str, elapsed: Duration) -> String {
    /// Wide enough for a package's name, narrow enough for a terminal of 100 columns.
    const NOTE_CHARACTERS: usize = 60;
    let short: String = note.chars().take(NOTE_CHARACTERS).collect();
    let gap = if short.is_empty() { "" } else { ": " };
    format!("...  {name} ({}){gap}{short}", seconds(elapsed))
}
