//! The ssh agent protocol, as far as it takes to let only harmless requests through (draft-ietf-sshm-ssh-agent).

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest message, in bytes; OpenSSH has the same limit.
const MAX_MESSAGE: u32 = 256 << 10;
const REQUEST_IDENTITIES: u8 = 11;
const SIGN_REQUEST: u8 = 13;
/// The whole `SSH_AGENT_FAILURE` message.
const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];

/// Passes requests for the list of keys and for signatures on; everything else (adding, removing, locking, extensions)
/// fails without reaching the agent. Ends when either side hangs up.
pub(super) async fn filter<C, A>(client: &mut C, agent: &mut A) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    A: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(request) = read_message(client).await? {
        match request.get(4) {
            Some(&REQUEST_IDENTITIES | &SIGN_REQUEST) => {
                agent.write_all(&request).await?;
                let answer = read_message(agent).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
                client.write_all(&answer).await?;
            }
            _ => client.write_all(&FAILURE).await?,
        }
        client.flush().await?;
    }
    Ok(())
}

/// One message with its length; none at the end of the stream.
async fn read_message(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    if from.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut length[1..]).await?;
    let size = u32::from_be_bytes(length);
    if size == 0 || size > MAX_MESSAGE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("ssh agent message of {size} bytes")));
    }
    let mut message = length.to_vec();
    message.resize(4 + size as usize, 0);
    from.read_exact(&mut message[4..]).await?;
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, rest: &[u8]) -> Vec<u8> {
        let size = u32::try_from(1 + rest.len()).unwrap();
        [&size.to_be_bytes()[..], &[kind], rest].concat()
    }

    #[tokio::test]
    async fn only_listing_and_signing_reach_the_agent() {
        let (mut near, mut client) = tokio::io::duplex(1024);
        let (mut far, mut agent) = tokio::io::duplex(1024);
        let seen = tokio::spawn(async move {
            let mut seen = vec![];
            while let Some(m) = read_message(&mut far).await.unwrap() {
                seen.push(m[4]);
                far.write_all(&message(12, b"keys")).await.unwrap();
            }
            seen
        });
        let filtered = tokio::spawn(async move { filter(&mut client, &mut agent).await });
        for kind in [REQUEST_IDENTITIES, 17, 18, 19, 22, 25, 27, 1, 0, SIGN_REQUEST] {
            near.write_all(&message(kind, b"x")).await.unwrap();
            let answer = read_message(&mut near).await.unwrap().unwrap();
            let passed = kind == REQUEST_IDENTITIES || kind == SIGN_REQUEST;
            assert_eq!(answer, if passed { message(12, b"keys") } else { FAILURE.to_vec() }, "{kind}");
        }
        drop(near);
        filtered.await.unwrap().unwrap();
        assert_eq!(seen.await.unwrap(), [REQUEST_IDENTITIES, SIGN_REQUEST]);
    }

    #[tokio::test]
    async fn messages_of_impossible_size_end_the_connection() {
        for size in [[0, 0, 0, 0], [0xff; 4]] {
            let (mut near, mut client) = tokio::io::duplex(64);
            let (_far, mut agent) = tokio::io::duplex(64);
            near.write_all(&size).await.unwrap();
            assert_eq!(filter(&mut client, &mut agent).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
