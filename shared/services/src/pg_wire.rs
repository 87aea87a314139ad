//! As much of Postgres's protocol as asking a server on loopback needs: trust, simple statements,
//! rows as text. It refuses a server that wants a password; that one is for `TRUEUP_POSTGRES_URL`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// `CREATE DATABASE` copies a template; everything else answers at once.
const PATIENCE: Duration = Duration::from_secs(30);
const PATIENCE_WITH_A_STRANGER: Duration = Duration::from_secs(3);
/// Version 3.0 of the protocol.
const PROTOCOL: i32 = 196_608;
/// Above any answer that is asked for here.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// Rows of text.
pub type TextRows = Vec<Vec<Option<String>>>;

/// Runs statements as `user` on `database`; the rows of all of them.
pub fn execute(port: u16, user: &str, database: &str, statements: &str) -> Result<TextRows> {
    execute_within(PATIENCE, port, user, database, statements)
}

/// The same of a server that may be none: what listens there answers at once or is not for us.
pub fn ask(port: u16, user: &str, database: &str, statements: &str) -> Result<TextRows> {
    execute_within(PATIENCE_WITH_A_STRANGER, port, user, database, statements)
}

fn execute_within(
    patience: Duration,
    port: u16,
    user: &str,
    database: &str,
    statements: &str,
) -> Result<TextRows> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let mut startup = PROTOCOL.to_be_bytes().to_vec();
    for word in [
        "user",
        user,
        "database",
        database,
        "application_name",
        "xtask",
        "",
    ] {
        startup.extend_from_slice(word.as_bytes());
        startup.push(0);
    }
    write(&mut stream, None, &startup)?;
    read_until_ready(&mut stream)?;
    let mut query = statements.as_bytes().to_vec();
    query.push(0);
    write(&mut stream, Some(b'Q'), &query)?;
    let rows = read_until_ready(&mut stream)?;
    // A farewell; whether it arrives changes nothing.
    let _ = write(&mut stream, Some(b'X'), &[]);
    Ok(rows)
}

fn write(stream: &mut TcpStream, kind: Option<u8>, payload: &[u8]) -> Result<()> {
    let mut message: Vec<u8> = kind.into_iter().collect();
    message.extend_from_slice(&i32::try_from(payload.len() + 4)?.to_be_bytes());
    message.extend_from_slice(payload);
    Ok(stream.write_all(&message)?)
}

/// Reads to the server's "ready for a query"; its first error, if there was one.
fn read_until_ready(stream: &mut TcpStream) -> Result<TextRows> {
    let mut rows = Vec::new();
    let mut error = None;
    loop {
        let mut head = [0_u8; 5];
        if let Err(cut) = stream.read_exact(&mut head) {
            // After an error at the start the server closes.
            return Err(error.unwrap_or_else(|| anyhow::Error::from(cut)));
        }
        let [kind, a, b, c, d] = head;
        let size = usize::try_from(i32::from_be_bytes([a, b, c, d]) - 4)
            .context("a message has a size")?;
        if size > MAX_MESSAGE_BYTES {
            bail!("this is no Postgres");
        }
        let mut payload = vec![0_u8; size];
        stream.read_exact(&mut payload)?;
        match kind {
            b'R' if payload != [0, 0, 0, 0] => bail!("it asks for a password"),
            b'D' => rows.push(row(&payload).context("a row that cannot be read")?),
            b'E' if error.is_none() => error = Some(anyhow::anyhow!("{}", complaint(&payload))),
            b'Z' => return error.map_or(Ok(rows), Err),
            _ => {}
        }
    }
}

fn row(payload: &[u8]) -> Option<Vec<Option<String>>> {
    let (count, mut rest) = payload.split_first_chunk::<2>()?;
    let mut columns = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (size, after) = rest.split_first_chunk::<4>()?;
        rest = after;
        // -1 is NULL.
        columns.push(match usize::try_from(i32::from_be_bytes(*size)) {
            Ok(size) => {
                let (value, after) = rest.split_at_checked(size)?;
                rest = after;
                Some(String::from_utf8_lossy(value).into_owned())
            }
            Err(_) => None,
        });
    }
    Some(columns)
}

/// The field `M` of an error: its message.
fn complaint(payload: &[u8]) -> String {
    payload
        .split(|byte| *byte == 0)
        .find_map(|field| field.strip_prefix(b"M"))
        .map_or_else(
            || "an error without a message".to_owned(),
            |m| String::from_utf8_lossy(m).into_owned(),
        )
}
