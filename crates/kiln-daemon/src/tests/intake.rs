//! Clients that send much and finish nothing.

use super::*;
use bytes::Bytes;
use futures::FutureExt;
use http_body::Frame;
use hyper_util::rt::TokioExecutor;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::codegen::http;

/// Some bytes, and then nothing for ever.
struct Unfinished(Option<Bytes>);

impl http_body::Body for Unfinished {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.0.take() {
            Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            None => Poll::Pending,
        }
    }
}

type Sender = hyper::client::conn::http2::SendRequest<Body>;

async fn connect(daemon: &Daemon) -> Sender {
    let io = TokioIo::new(UnixStream::connect(daemon.socket()).await.unwrap());
    let (sender, driver) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(driver);
    sender
}

/// Begins a call with a message of `size` bytes, of which `sent` come; the status with which it ends.
fn begin(sender: &Sender, size: u32, sent: usize) -> JoinHandle<String> {
    let mut sender = sender.clone();
    let message = [&[0][..], &size.to_be_bytes(), &vec![0; sent]].concat();
    let request = http::Request::post("http://localhost/moby.buildkit.v1.Control/Solve")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(Unfinished(Some(message.into()))))
        .unwrap();
    tokio::spawn(async move {
        match sender.send_request(request).await {
            Ok(answer) => answer.headers()["grpc-status"].to_str().unwrap().to_string(),
            Err(e) => e.to_string(),
        }
    })
}

#[tokio::test]
async fn messages_that_are_not_finished_give_way() {
    let daemon = Daemon::start().await;
    let sender = connect(&daemon).await;
    // Sixteen of them are as much as there may be.
    let begun: Vec<_> = (0..20).map(|_| begin(&sender, 16 << 20, 1000)).collect();
    let refused = async {
        while begun.iter().filter(|call| call.is_finished()).count() < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, refused).await.expect("some are refused");
    // An honest one that is large goes through, over the same connection as well as over another.
    let big = control::SolveRequest {
        frontend_attrs: [("x".to_string(), "y".repeat(12 << 20))].into(),
        ..scratch("big")
    };
    tokio::time::timeout(LIMIT, daemon.control().await.solve(big)).await.unwrap().unwrap();
    let ended: Vec<String> =
        begun.into_iter().filter_map(|call| Some(call.now_or_never()?.unwrap())).collect();
    assert!(ended.len() < 20 && ended.iter().all(|status| status == "8"), "{ended:?}");
    daemon.stop().await.unwrap();
}

/// Further connections wait until there is a place.
#[tokio::test]
async fn connections_are_bounded() {
    let daemon = Daemon::start().await;
    let mut open = Vec::new();
    for _ in 0..256 {
        open.push(UnixStream::connect(daemon.socket()).await.unwrap());
    }
    let channel = daemon.channel();
    let mut next = tokio::spawn({
        let channel = channel.await;
        async move { ControlClient::new(channel).info(control::InfoRequest {}).await.map(drop) }
    });
    let early = tokio::time::timeout(Duration::from_millis(200), &mut next).await;
    assert!(early.is_err(), "there is no place");
    drop(open);
    tokio::time::timeout(LIMIT, next).await.expect("there is one now").unwrap().unwrap();
    daemon.stop().await.unwrap();
}
