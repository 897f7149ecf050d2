//! Secrets and ssh agents, asked of the clients that wait for the process. Values never appear in an error.

use crate::Inner;
use crate::exec::Sessions;
use kiln_llb::SecretEnv;
use kiln_llb::errdefs::BuildError;
use kiln_session::{Session, SessionError};

/// The secret, or `None` when it is missing and optional.
pub(crate) async fn get(
    inner: &Inner,
    sessions: &Sessions<'_>,
    id: &str,
    optional: bool,
) -> Result<Option<Vec<u8>>, BuildError> {
    let ask = |session: Session| async move { session.get_secret(id).await };
    match inner.sessions.any(&sessions(), ask).await {
        Ok(secret) => Ok(Some(secret)),
        Err(error) if optional && missing(&error) => Ok(None),
        Err(error) if missing(&error) => {
            let hint =
                format!("secret {id}: not found; give it with --secret id={id},src=FILE or env=VARIABLE");
            Err(BuildError::msg(hint))
        }
        Err(error) => Err(BuildError::msg(format!("secret {id}: {error}"))),
    }
}

/// Secrets that are given as variables.
pub(crate) async fn environment(
    inner: &Inner,
    sessions: &Sessions<'_>,
    wanted: &[SecretEnv],
) -> Result<Vec<(String, String)>, BuildError> {
    let mut out = Vec::new();
    for secret in wanted {
        if let Some(value) = get(inner, sessions, &secret.id, secret.optional).await? {
            let text = String::from_utf8(value);
            let text = text.map_err(|_| {
                BuildError::msg(format!("secret {}: not UTF-8, so it cannot be a variable", secret.id))
            })?;
            out.push((secret.name.clone(), text));
        }
    }
    Ok(out)
}

/// A session that has the ssh agent `id`.
pub(crate) async fn ssh_session(
    inner: &Inner,
    sessions: &Sessions<'_>,
    id: &str,
    optional: bool,
) -> Result<Option<Session>, BuildError> {
    let ask = |session: Session| async move { session.check_ssh(id).await.map(|()| session) };
    match inner.sessions.any(&sessions(), ask).await {
        Ok(session) => Ok(Some(session)),
        Err(error) if optional && missing(&error) => Ok(None),
        Err(error) => Err(BuildError::msg(format!(
            "no SSH key {id:?} forwarded from the client: {error}; use --ssh {id}"
        ))),
    }
}

fn missing(error: &SessionError) -> bool {
    error.is_missing()
}
