//! The least HTTP/1.1 that the bot's clients need: requests with a length, connections kept alive, and a
//! door to WebSocket. It is not a server to copy: it trusts its one client and saves every cycle, because
//! it shares two cores with the bot that is measured.

use std::rc::Rc;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

/// A request, whole.
pub struct Request<'a> {
    /// Path and query.
    pub target: &'a str,
    head: &'a str,
    pub body: &'a str,
}

impl Request<'_> {
    pub fn header(&self, name: &str) -> Option<&str> {
        header(self.head, name)
    }
}

/// What it gets.
pub enum Reply {
    /// 200 with this JSON.
    Json(String),
    /// 101; the connection is the handler's from now on.
    WebSocket,
}

/// What answers.
pub trait Handler: 'static {
    fn answer(&self, request: &Request<'_>) -> Reply;
    fn upgraded(self: Rc<Self>, stream: TcpStream);
}

/// Takes connections for ever, on this thread.
pub async fn serve<H: Handler>(listener: TcpListener, handler: Rc<H>) {
    while let Ok((stream, _)) = listener.accept().await {
        let handler = Rc::clone(&handler);
        spawn_local(async move {
            // The bot may close at any time; what that breaks shows in the counts.
            drop(connection(stream, handler).await);
        });
    }
}

async fn connection<H: Handler>(mut stream: TcpStream, handler: Rc<H>) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer: Vec<u8> = Vec::with_capacity(1 << 16);
    let mut out: Vec<u8> = Vec::with_capacity(1 << 14);
    loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        let mut used = 0;
        while let Some((request, length)) = parse(&buffer[used..])? {
            match handler.answer(&request) {
                Reply::Json(body) => {
                    out.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-oauth-scopes: chat:write,channels:history,channels:read,groups:read,reactions:write,files:write,commands,users:read,usergroups:read,app_mentions:read\r\ncontent-length: ");
                    out.extend_from_slice(body.len().to_string().as_bytes());
                    out.extend_from_slice(b"\r\n\r\n");
                    out.extend_from_slice(body.as_bytes());
                }
                Reply::WebSocket => {
                    let key = request.header("sec-websocket-key").context("no key")?;
                    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
                    let head = format!(
                        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
                    );
                    stream.write_all(head.as_bytes()).await?;
                    handler.upgraded(stream);
                    return Ok(());
                }
            }
            used += length;
        }
        buffer.drain(..used);
        stream.write_all(&out).await?;
        out.clear();
    }
}

/// The first request of what was read, and its length.
fn parse(bytes: &[u8]) -> anyhow::Result<Option<(Request<'_>, usize)>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..end])?;
    let length: usize = header(head, "content-length").map_or(Ok(0), str::parse)?;
    if header(head, "transfer-encoding").is_some() {
        bail!("a body without a length");
    }
    let Some(body) = bytes.get(end + 4..end + 4 + length) else { return Ok(None) };
    let target = head.split(' ').nth(1).context("no request line")?;
    Ok(Some((Request { target, head, body: std::str::from_utf8(body)? }, end + 4 + length)))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
