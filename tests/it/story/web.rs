//! A client of a few lines, for what a well-behaved one would not send.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The status and the body of an answer; status 0 where nobody answers.
pub async fn request(at: SocketAddr, head: &str, body: &str) -> (u16, String) {
    let answer = async {
        let mut stream = TcpStream::connect(at).await?;
        let length = body.len();
        let request =
            format!("{head}\r\nhost: {at}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = answer.await.unwrap_or_default();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status, body)
}

pub async fn get(at: SocketAddr, path: &str) -> (u16, String) {
    request(at, &format!("GET {path} HTTP/1.1"), "").await
}
