//! Headers that are of one connection only (RFC 9110 section 7.6.1).

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Never passed on. `proxy-connection` is of old clients.
const OF_A_CONNECTION: [HeaderName; 6] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
const OF_OLD_CONNECTIONS: [&str; 3] = ["keep-alive", "proxy-connection", "trailer"];

fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&OF_A_CONNECTION) {
        headers.remove(name);
    }
    for name in OF_OLD_CONNECTIONS {
        headers.remove(name);
    }
}

/// Makes the headers of a step's request those of the one that is sent on.
pub(crate) fn of_request(headers: &mut HeaderMap, credentials: Option<HeaderValue>) {
    strip(headers);
    // The address says it.
    headers.remove(header::HOST);
    // Answered here.
    headers.remove(header::EXPECT);
    // A digest is of the content, not of how some server packed it this time.
    headers.remove(header::ACCEPT_ENCODING);
    if let Some(credentials) = credentials {
        headers.entry(header::AUTHORIZATION).or_insert(credentials);
    }
}

/// Makes the headers of an answer those that the step gets.
pub(crate) fn of_answer(headers: &mut HeaderMap) {
    strip(headers);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_the_connection_stays_there() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "X-One, close"),
            ("connection", "x-two"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("proxy-authorization", "secret"),
            ("keep-alive", "timeout=5"),
            ("upgrade", "h2c"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers"),
            ("host", "h"),
            ("expect", "100-continue"),
            ("accept-encoding", "gzip"),
            ("authorization", "mine"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        of_request(&mut headers, Some(HeaderValue::from_static("of the address")));
        let mut left: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
        left.sort_unstable();
        assert_eq!(left, [("authorization", "mine"), ("x-three", "3")]);
    }
}
