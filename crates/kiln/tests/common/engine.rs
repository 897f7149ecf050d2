//! As much of a Docker Engine as a builder in a container needs; what runs in the container is the world's daemon.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::io::{BufRead as _, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// What the engine was asked, in order: `METHOD /path body`.
pub(crate) type Asked = Arc<Mutex<Vec<String>>>;

#[derive(Clone)]
struct State {
    daemon: PathBuf,
    asked: Asked,
    /// None = there is no container; else whether it runs.
    running: Arc<Mutex<Option<bool>>>,
    last_exec: Arc<Mutex<String>>,
}

/// Starts it at `socket`; `daemon` is the socket behind `buildctl dial-stdio`.
pub(crate) fn start(socket: &Path, daemon: &Path) -> Asked {
    let listener = UnixListener::bind(socket).unwrap();
    let asked = Asked::default();
    let state = State {
        daemon: daemon.to_owned(),
        asked: asked.clone(),
        running: Arc::default(),
        last_exec: Arc::default(),
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let state = state.clone();
            std::thread::spawn(move || drop(serve(stream, &state)));
        }
    });
    asked
}

/// One request per connection.
fn serve(stream: UnixStream, state: &State) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let target = line.rsplit_once(" HTTP").map_or(line.as_str(), |(t, _)| t).to_owned();
    let (mut length, mut chunked) = (0, false);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        chunked |= header == "transfer-encoding: chunked";
        if let Some(n) = header.strip_prefix("content-length: ") {
            length = n.parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    if chunked {
        body = read_chunks(&mut reader)?;
    }
    let text = if target.contains("/archive") || chunked {
        format!("{} bytes", body.len())
    } else {
        String::from_utf8_lossy(&body).into_owned()
    };
    state.asked.lock().unwrap().push(format!("{target} {text}").trim().to_owned());
    answer(stream, state, &target, &text)
}

fn read_chunks(reader: &mut impl std::io::BufRead) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut size = String::new();
        reader.read_line(&mut size)?;
        let size = u64::from_str_radix(size.trim(), 16).unwrap();
        reader.take(size).read_to_end(&mut body)?;
        reader.read_line(&mut String::new())?;
        if size == 0 {
            return Ok(body);
        }
    }
}

fn answer(mut stream: UnixStream, state: &State, target: &str, body: &str) -> std::io::Result<()> {
    let mut running = state.running.lock().unwrap();
    let (status, text): (u16, String) = match target {
        "GET /_ping" => (200, "OK".into()),
        "GET /info" => (200, r#"{"CgroupDriver":"cgroupfs","SecurityOptions":["name=seccomp"]}"#.into()),
        t if t.starts_with("GET /containers/") => match *running {
            None => (404, r#"{"message":"No such container: b"}"#.into()),
            Some(runs) => (
                200,
                format!(
                    r#"{{"State":{{"Running":{runs}}},"Mounts":[{{"Name":"buildx_buildkit_c0_state"}}]}}"#
                ),
            ),
        },
        t if t.starts_with("POST /images/create") => {
            (200, "{\"status\":\"Pulling\"}\n{\"error\":\"pull access denied\"}\n".into())
        }
        t if t.starts_with("POST /images/load") => (200, "{\"stream\":\"Loaded image: app\\n\"}\n".into()),
        t if t.starts_with("GET /images/") => (200, "{}".into()),
        t if t.starts_with("POST /containers/create") => {
            *running = Some(false);
            (201, r#"{"Id":"c"}"#.into())
        }
        t if t.starts_with("POST /containers/") && t.ends_with("/start") => {
            *running = Some(true);
            (204, String::new())
        }
        t if t.starts_with("POST /containers/") && t.ends_with("/stop") => {
            *running = Some(false);
            (204, String::new())
        }
        t if t.starts_with("DELETE /containers/") => {
            *running = None;
            (204, String::new())
        }
        t if t.starts_with("POST /containers/") && t.ends_with("/exec") => {
            body.clone_into(&mut state.last_exec.lock().unwrap());
            (201, r#"{"Id":"e"}"#.into())
        }
        t if t.starts_with("POST /exec/") => {
            drop(running);
            return exec(stream, state);
        }
        t if t.starts_with("GET /exec/") => (200, r#"{"ExitCode":0}"#.into()),
        t if t.starts_with("PUT /containers/") => (200, String::new()),
        t if t.starts_with("DELETE /volumes/") => (204, String::new()),
        _ => (404, format!(r#"{{"message":"not here: {target}"}}"#)),
    };
    write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len())
}

/// The streams of a process, each piece behind a header.
fn exec(mut stream: UnixStream, state: &State) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")?;
    let frame = |kind: u8, data: &[u8]| {
        let length = u32::try_from(data.len()).unwrap().to_be_bytes();
        [&[kind, 0, 0, 0][..], &length, data].concat()
    };
    stream.write_all(&frame(2, b"noise on stderr\n"))?;
    if !state.last_exec.lock().unwrap().contains("dial-stdio") {
        return stream.write_all(&frame(1, b"ID PLATFORMS\n"));
    }
    let mut daemon = UnixStream::connect(&state.daemon)?;
    let (mut from, mut to) = (stream.try_clone()?, daemon.try_clone()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    let mut piece = vec![0; 32 << 10];
    loop {
        match daemon.read(&mut piece)? {
            0 => return stream.shutdown(std::net::Shutdown::Both),
            n => stream.write_all(&frame(1, &piece[..n]))?,
        }
    }
}
