//! Content that a server packed for the way (RFC 9110 section 8.4): files are kept as they were before that.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};

/// Packed bytes unpacked at once, so that a small bomb makes no large piece.
const STEP: usize = 4 << 10;

struct State {
    body: BoxStream<'static, io::Result<Bytes>>,
    rest: Bytes,
    decoder: Option<MultiGzDecoder<Vec<u8>>>,
}

/// The bytes before gzip was applied.
pub(super) fn gunzip(body: BoxStream<'static, io::Result<Bytes>>) -> BoxStream<'static, io::Result<Bytes>> {
    let decoder = Some(MultiGzDecoder::new(Vec::new()));
    let state = State { body, rest: Bytes::new(), decoder };
    stream::try_unfold(state, |mut state| async move {
        loop {
            let Some(decoder) = &mut state.decoder else { return Ok(None) };
            if state.rest.is_empty() {
                match state.body.try_next().await? {
                    Some(piece) => state.rest = piece,
                    None => {
                        decoder.try_finish()?;
                        let last = std::mem::take(decoder.get_mut());
                        state.decoder = None;
                        return Ok(Some((last.into(), state)));
                    }
                }
            }
            let step = state.rest.split_to(state.rest.len().min(STEP));
            decoder.write_all(&step)?;
            let out = std::mem::take(decoder.get_mut());
            if !out.is_empty() {
                return Ok(Some((Bytes::from(out), state)));
            }
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn unpacked(pieces: Vec<Vec<u8>>) -> io::Result<Vec<u8>> {
        let body = stream::iter(pieces.into_iter().map(|p| Ok(Bytes::from(p)))).boxed();
        let all: Vec<Bytes> = gunzip(body).try_collect().await?;
        Ok(all.concat())
    }

    #[tokio::test]
    async fn pieces_of_any_size() {
        let text: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(&text).unwrap();
        let packed = packer.finish().unwrap();
        for size in [1, 7, 5000, packed.len()] {
            let pieces = packed.chunks(size).map(<[u8]>::to_vec).collect();
            assert_eq!(unpacked(pieces).await.unwrap(), text, "{size}");
        }
        assert!(unpacked(vec![packed[..packed.len() - 9].to_vec()]).await.is_err(), "cut off");
        assert!(unpacked(vec![b"plain".to_vec()]).await.is_err());
    }
}
