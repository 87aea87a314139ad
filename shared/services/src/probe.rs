//! Does a service that answers on a port let us in? Asked in its own tongue, with a real login: an
//! open port says nothing. Refuses to wait: loopback answers at once or is not for us.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

const PATIENCE: Duration = Duration::from_secs(3);

fn connect(port: u16) -> Result<TcpStream> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Redis without a password: PONG.
pub fn redis(port: u16) -> Result<()> {
    let mut stream = connect(port)?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0_u8; 7];
    stream.read_exact(&mut answer)?;
    if &answer == b"+PONG\r\n" {
        return Ok(());
    }
    bail!(
        "it answers {:?} (a password, perhaps)",
        String::from_utf8_lossy(&answer)
    )
}

/// What a broker says to guest's login on a vhost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AmqpLogin {
    LetsIn,
    /// The login is right, the vhost is not (or not ours).
    NoVhost,
}

const CLASS_CONNECTION: u16 = 10;
const START: u16 = 10;
const TUNE: u16 = 30;
const OPEN_OK: u16 = 41;
const CLOSE: u16 = 50;

/// The AMQP 0-9-1 handshake as far as an open vhost.
pub fn amqp(port: u16, user: &str, password: &str, vhost: &str) -> Result<AmqpLogin> {
    let mut stream = connect(port)?;
    stream.write_all(b"AMQP\x00\x00\x09\x01")?;
    expect(&mut stream, START)?;
    let mut start_ok = method(11);
    start_ok.extend_from_slice(&0_u32.to_be_bytes()); // no client properties
    short(&mut start_ok, "PLAIN")?;
    let response = format!("\0{user}\0{password}");
    start_ok.extend_from_slice(&u32::try_from(response.len())?.to_be_bytes());
    start_ok.extend_from_slice(response.as_bytes());
    short(&mut start_ok, "en_US")?;
    send(&mut stream, &start_ok)?;
    expect(&mut stream, TUNE).context("the login was refused")?;
    let mut tune_ok = method(31);
    // One channel (0, "any", is over RabbitMQ's bound), frames of 128 KiB, no heartbeat.
    tune_ok.extend_from_slice(&[0, 1, 0, 2, 0, 0, 0, 0]);
    send(&mut stream, &tune_ok)?;
    let mut open = method(40);
    short(&mut open, vhost)?;
    open.extend_from_slice(&[0, 0]);
    send(&mut stream, &open)?;
    match next(&mut stream)? {
        OPEN_OK => {
            let mut close = method(CLOSE);
            close.extend_from_slice(&200_u16.to_be_bytes());
            short(&mut close, "bye")?;
            close.extend_from_slice(&[0; 4]);
            // A farewell: whether it arrives changes nothing.
            let _ = send(&mut stream, &close).and_then(|()| next(&mut stream));
            Ok(AmqpLogin::LetsIn)
        }
        CLOSE => Ok(AmqpLogin::NoVhost),
        other => bail!("the broker answers method {other} to open"),
    }
}

fn method(id: u16) -> Vec<u8> {
    let mut bytes = CLASS_CONNECTION.to_be_bytes().to_vec();
    bytes.extend_from_slice(&id.to_be_bytes());
    bytes
}

fn short(bytes: &mut Vec<u8>, text: &str) -> Result<()> {
    bytes.push(u8::try_from(text.len())?);
    bytes.extend_from_slice(text.as_bytes());
    Ok(())
}

fn send(stream: &mut TcpStream, payload: &[u8]) -> Result<()> {
    let mut frame = vec![1, 0, 0];
    frame.extend_from_slice(&u32::try_from(payload.len())?.to_be_bytes());
    frame.extend_from_slice(payload);
    frame.push(0xCE);
    Ok(stream.write_all(&frame)?)
}

/// The id of the next method on channel 0.
fn next(stream: &mut TcpStream) -> Result<u16> {
    /// The greeting's table of capabilities is the longest, at under 2 KiB.
    const MAX_FRAME_BYTES: u32 = 64 * 1024;
    let mut head = [0_u8; 7];
    stream.read_exact(&mut head)?;
    let [kind, _, _, a, b, c, d] = head;
    let size = u32::from_be_bytes([a, b, c, d]);
    if kind != 1 || size > MAX_FRAME_BYTES {
        bail!("this is no AMQP 0-9-1");
    }
    let mut payload = vec![0_u8; size as usize + 1];
    stream.read_exact(&mut payload)?;
    match payload.as_slice() {
        [0, 10, high, low, ..] => Ok(u16::from_be_bytes([*high, *low])),
        _ => bail!("the broker speaks out of turn"),
    }
}

fn expect(stream: &mut TcpStream, id: u16) -> Result<()> {
    let got = next(stream)?;
    if got == id {
        return Ok(());
    }
    bail!("the broker answers method {got} instead of {id}")
}
