//! A loopback HTTP server that answers whatever a test says, byte for byte.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

/// What was asked. Names of headers are in lower case.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

/// An answer: status, header lines, body.
pub(crate) struct Answer(pub(crate) u16, pub(crate) Vec<String>, pub(crate) Vec<u8>);

impl Answer {
    pub(crate) fn ok(content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self(200, vec![format!("Content-Type: {content_type}")], body.into())
    }

    pub(crate) fn status(status: u16) -> Self {
        Self(status, Vec::new(), Vec::new())
    }
}

/// Serves until the test ends; returns `127.0.0.1:PORT`.
pub(crate) fn serve(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            // A client that hangs up early is no failure of the server.
            std::thread::spawn(move || drop(one(&stream, &*answer)));
        }
    });
    host
}

fn one(mut stream: &TcpStream, answer: &dyn Fn(&Request) -> Answer) -> std::io::Result<()> {
    let request = read(stream)?;
    let Answer(status, headers, body) = answer(&request);
    let has_length = headers.iter().any(|h| h.starts_with("Content-Length"));
    let length = if has_length { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let lines: String = headers.iter().map(|h| format!("{h}\r\n")).collect();
    write!(stream, "HTTP/1.1 {status} x\r\nConnection: close\r\n{length}{lines}\r\n")?;
    if request.method != "HEAD" {
        stream.write_all(&body)?;
    }
    stream.flush()
}

fn read(stream: &TcpStream) -> std::io::Result<Request> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        lines.push(line.trim_end().to_string());
    }
    let mut first = lines.first().map_or("", |l| l).split(' ').map(String::from);
    let (method, target) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let headers: HashMap<_, _> = lines
        .iter()
        .filter_map(|l| l.split_once(": "))
        .map(|(k, v)| (k.to_lowercase(), v.to_string()))
        .collect();
    let mut body = vec![0; headers.get("content-length").map_or(0, |l| l.parse().unwrap())];
    reader.read_exact(&mut body)?;
    Ok(Request { method, target, headers, body })
}
