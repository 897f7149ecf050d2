//! A web server of the machine that the daemon runs on.
#![allow(dead_code, reason = "each test binary uses a part")]

use kiln_testkit::wait_until;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

/// Answers every request with its path; `/hang` never.
#[derive(Clone)]
pub(crate) struct Web(Arc<State>);

struct State {
    at: SocketAddr,
    asked: Mutex<Vec<String>>,
    /// Connections that were waiting for `/hang` and ended.
    ended: Mutex<usize>,
}

/// A stream, plain or not.
pub(crate) trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

impl Web {
    pub(crate) fn start() -> Self {
        Self::start_with(|stream| Some(Box::new(stream)))
    }

    /// `wrap` is done with each connection first.
    pub(crate) fn start_with(
        wrap: impl Fn(std::net::TcpStream) -> Option<Box<dyn Stream>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let web = Self(Arc::new(State { at, asked: Mutex::default(), ended: Mutex::default() }));
        let (serving, wrap) = (web.clone(), Arc::new(wrap));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (web, wrap) = (serving.clone(), wrap.clone());
                std::thread::spawn(move || wrap(stream).map(|stream| web.serve(stream)));
            }
        });
        web
    }

    fn serve(&self, mut stream: Box<dyn Stream>) {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(1) => head.push(byte[0]),
                _ => return,
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let path = head.split(' ').nth(1).unwrap_or_default().to_string();
        self.0.asked.lock().unwrap().push(head);
        if path == "/hang" {
            while stream.read(&mut byte).is_ok_and(|n| n > 0) {}
            *self.0.ended.lock().unwrap() += 1;
            return;
        }
        let body = format!("this is {path}\n");
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        let _ = stream.write_all((head + &body).as_bytes());
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.at.port()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.0.at)
    }

    /// The heads of all requests.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.0.asked.lock().unwrap().clone()
    }

    /// Waits until somebody has asked.
    pub(crate) fn reached(&self) {
        wait_until("a request", || !self.asked().is_empty());
    }

    /// Waits until nobody waits for `/hang` any more.
    pub(crate) fn abandoned(&self) {
        wait_until("the end of a request", || *self.0.ended.lock().unwrap() > 0);
    }
}
