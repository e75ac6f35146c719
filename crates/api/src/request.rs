//! Requests: path and version, query, body.

use crate::access::Caller;
use crate::reply::Body;
use bytes::Bytes;
use docker_api::{Failure, Filters};
use http::{HeaderMap, Method, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use model::limits;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::time::Duration;

/// The oldest API version that is served.
pub(crate) const API_MIN: ApiVersion = ApiVersion(1, 24);
/// The newest API version that is served.
pub(crate) const API_MAX: ApiVersion = ApiVersion(1, 56);
/// How long a client may take to send a body that we parse ourselves.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// An API version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ApiVersion(pub(crate) u32, pub(crate) u32);

/// A request's path without its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    /// The version it named.
    pub(crate) version: Option<ApiVersion>,
    /// The rest as it came, with its leading slash.
    pub(crate) rest: String,
    /// The rest in decoded segments.
    pub(crate) segments: Vec<String>,
}

/// A request that one of our own handlers answers.
pub(crate) struct Request {
    /// Method.
    pub(crate) method: Method,
    /// Path.
    pub(crate) path: Path,
    /// Query parameters; of several with one name, the first, as Go's `Form.Get` has it.
    pub(crate) query: Query,
    /// Headers.
    pub(crate) headers: HeaderMap,
    /// Who sends it. The table has let it through; a handler asks only where an answer differs.
    pub(crate) caller: Caller,
    /// Body.
    pub(crate) body: Body,
}

/// Query parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query(BTreeMap<String, String>);

// === impl ApiVersion ===

impl ApiVersion {
    /// Reads `1.47`.
    pub(crate) fn parse(text: &str) -> Option<ApiVersion> {
        let (major, minor) = text.split_once('.')?;
        let number = |s: &str| s.bytes().all(|b| b.is_ascii_digit()).then(|| s.parse::<u32>().ok()).flatten();
        Some(ApiVersion(number(major)?, number(minor)?))
    }
}

impl std::fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

// === impl Path ===

impl Path {
    /// Takes a path apart. A version that we do not speak is Docker's 400.
    pub(crate) fn parse(path: &str) -> Result<Path, Failure> {
        let (version, rest) = match split_version(path) {
            None => (None, path),
            Some((text, rest)) => {
                let version = ApiVersion::parse(text).ok_or_else(Failure::page_not_found)?;
                if version < API_MIN {
                    return Err(Failure::client_too_old(text, &API_MIN.to_string()));
                }
                if version > API_MAX {
                    return Err(Failure::client_too_new(text, &API_MAX.to_string()));
                }
                (Some(version), rest)
            }
        };
        let decode = |s: &str| percent_encoding::percent_decode_str(s).decode_utf8().map(|s| s.into_owned());
        let segments: Result<Vec<String>, _> = rest.split('/').skip(1).map(decode).collect();
        let segments = segments.map_err(|_| Failure::bad_request("the path is not UTF-8"))?;
        Ok(Path { version, rest: rest.to_owned(), segments })
    }
}

/// `/v1.47/services` into `1.47` and `/services`.
fn split_version(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix("/v")?;
    let (version, _) = rest.split_once('/')?;
    let looks_like_one = !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    looks_like_one.then(|| (version, &rest[version.len()..]))
}

// === impl Query ===

impl Query {
    /// Reads a query string.
    pub(crate) fn parse(query: Option<&str>) -> Query {
        let mut all = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            all.entry(name.into_owned()).or_insert_with(|| value.into_owned());
        }
        Query(all)
    }

    /// One parameter; empty when it is not there.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// A switch, as Docker's `BoolValue` reads it: on unless empty, `0`, `no`, `false` or `none`.
    pub(crate) fn is_on(&self, name: &str) -> bool {
        !matches!(self.get(name).trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// A switch, as Go's `strconv.ParseBool` reads it; `None` when it is not there. A word that it does not know is Docker's
    /// 400.
    pub(crate) fn parsed_bool(&self, name: &str) -> Result<Option<bool>, Failure> {
        match self.get(name) {
            "" => Ok(None),
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Some(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Some(false)),
            other => {
                let shown: String = other.chars().take(64).collect();
                Err(Failure::bad_request(format_args!(
                    "invalid value for {name}: {shown}: strconv.ParseBool: parsing {shown:?}: invalid syntax"
                )))
            }
        }
    }

    /// The `filters` parameter.
    pub(crate) fn filters(&self) -> Result<Filters, Failure> {
        Filters::parse(self.get("filters"))
    }

    /// The `version` parameter that an update must have.
    pub(crate) fn version(&self, kind: &str) -> Result<u64, Failure> {
        let text = self.get("version");
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let version = digits.then(|| text.parse().ok()).flatten();
        version.ok_or_else(|| Failure::invalid_version(kind, &text.chars().take(64).collect::<String>()))
    }
}

// === impl Request ===

impl Request {
    /// A header's text; empty when it is not there or no text.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    /// True when the caller is content with what this manager has applied, without asking the leader.
    pub(crate) fn wants_stale(&self) -> bool {
        self.query.is_on("stale") || self.header("x-swarmlite-read").eq_ignore_ascii_case("stale")
    }

    /// The JSON body; the default when there is none, as in Docker.
    pub(crate) async fn json<T: DeserializeOwned + Default>(&mut self) -> Result<T, Failure> {
        let content_type = self.header("content-type").to_owned();
        let bytes = self.bytes().await?;
        if bytes.is_empty() {
            return Ok(T::default());
        }
        let mime = content_type.split(';').next().unwrap_or_default().trim();
        if !mime.eq_ignore_ascii_case("application/json") {
            let given: String = content_type.chars().take(64).collect();
            let text = format!("unsupported Content-Type header ({given}): must be 'application/json'");
            return Err(Failure::bad_request(text));
        }
        if values_in(&bytes) > limits::API_BODY_VALUES_MAX {
            let max = limits::API_BODY_VALUES_MAX;
            let text = format!(
                "the request body holds too many values: at most {max} elements of arrays and members of objects are accepted"
            );
            return Err(Failure::bad_request(text));
        }
        parse_json(&bytes)
    }

    /// The whole body, of at most the size that we parse.
    pub(crate) async fn bytes(&mut self) -> Result<Bytes, Failure> {
        let declared = self.header(header::CONTENT_LENGTH.as_str()).parse().unwrap_or(0_u64);
        if declared > limits::API_BODY_BYTES_MAX as u64 {
            return Err(too_large());
        }
        let body = std::mem::replace(&mut self.body, crate::reply::full(Bytes::new()));
        let read = Limited::new(body, limits::API_BODY_BYTES_MAX).collect();
        match tokio::time::timeout(BODY_TIMEOUT, read).await {
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
            Ok(Err(e)) if e.is::<LengthLimitError>() => Err(too_large()),
            Ok(Err(e)) => Err(Failure::bad_request(format_args!("cannot read the request body: {e}"))),
            Err(_) => Err(Failure::new(408, format_args!("the request body did not come within {BODY_TIMEOUT:?}"))),
        }
    }
}

/// A Unix time `seconds[.fraction]`, as clients send it, in nanoseconds; `None` when none was given (Docker: empty or 0).
pub(crate) fn unix_ns(name: &str, text: &str) -> Result<Option<u64>, Failure> {
    if text.is_empty() || text == "0" {
        return Ok(None);
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let seconds = whole.parse::<u64>().ok().and_then(|s| s.checked_mul(1_000_000_000));
    let nanos = format!("{:0<9}", fraction.get(..9).unwrap_or(fraction)).parse::<u64>();
    match (seconds, nanos) {
        (Some(s), Ok(n)) if digits(whole) && digits(fraction) => Ok(Some(s.saturating_add(n))),
        _ => {
            let shown: String = text.chars().take(64).collect();
            Err(Failure::bad_request(format_args!("invalid {name} {shown:?}: it must be a Unix time in seconds")))
        }
    }
}

fn too_large() -> Failure {
    let max = limits::API_BODY_BYTES_MAX;
    Failure::new(413, format_args!("the request body is too large: at most {max} bytes are accepted"))
}

/// About how many values a JSON text holds: commas and opening brackets outside of strings. Costs nothing beside parsing it.
fn values_in(json: &[u8]) -> usize {
    let (mut values, mut in_string, mut escaped) = (0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b',' | b'[' | b'{' if !in_string => values += 1,
            _ => {}
        }
    }
    values
}

/// Reads JSON with Docker's words for what is wrong with it.
pub(crate) fn parse_json<T: DeserializeOwned + Default>(bytes: &[u8]) -> Result<T, Failure> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Failure::invalid_json("got EOF while reading request body"));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde::Deserialize::deserialize(&mut reader).map_err(Failure::invalid_json)?;
    // `null` is Go's way to say nothing.
    let value: Option<T> = value;
    reader.end().map_err(|_| Failure::bad_request("unexpected content after JSON"))?;
    Ok(value.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_in_the_path() {
        let ok = |p: &str| Path::parse(p).map(|p| (p.version.map(|v| v.to_string()), p.rest));
        assert_eq!(ok("/v1.24/services"), Ok((Some("1.24".into()), "/services".into())));
        assert_eq!(ok("/v1.56/_ping"), Ok((Some("1.56".into()), "/_ping".into())));
        assert_eq!(ok("/volumes"), Ok((None, "/volumes".into())));
        assert_eq!(ok("/version"), Ok((None, "/version".into())));
        for (path, text) in [
            (
                "/v1.23/info",
                "client version 1.23 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version",
            ),
            ("/v1.57/info", "client version 1.57 is too new. Maximum supported API version is 1.56"),
            ("/v2.0/info", "client version 2.0 is too new. Maximum supported API version is 1.56"),
            ("/v1..2/info", "page not found"),
            ("/v99999999999.1/info", "page not found"),
        ] {
            assert_eq!(Path::parse(path).map_err(|f| f.message), Err(text.to_owned()), "{path}");
        }
    }

    #[test]
    fn segments_are_decoded() {
        let path = Path::parse("/services/my%2Fweb/logs").expect("a path");
        assert_eq!(path.segments, ["services", "my/web", "logs"]);
        assert!(Path::parse("/services/%ff").is_err());
    }

    #[test]
    fn switches_and_versions_are_dockers() {
        let q = Query::parse(Some("a=1&b=false&c=&d=no&e=x&version=12&e=y"));
        assert_eq!(["a", "b", "c", "d", "e", "f"].map(|n| q.is_on(n)), [true, false, false, false, true, false]);
        assert_eq!(
            (q.parsed_bool("a"), q.parsed_bool("b"), q.parsed_bool("c")),
            (Ok(Some(true)), Ok(Some(false)), Ok(None))
        );
        let no = "invalid value for d: no: strconv.ParseBool: parsing \"no\": invalid syntax";
        assert_eq!(q.parsed_bool("d").map_err(|f| f.message), Err(no.into()));
        assert_eq!(q.version("service"), Ok(12));
        assert_eq!(q.get("e"), "x");
        for bad in ["", "version=", "version=-1", "version=1x", "version=%2B1", "version=18446744073709551616"] {
            assert_eq!(Query::parse(Some(bad)).version("node").map_err(|f| f.status), Err(400), "{bad}");
        }
    }

    #[test]
    fn values_are_counted_where_they_are() {
        for (json, values) in [
            ("{}", 1),
            (r#"{"a,b[{":"\\\",[{"}"#, 1),
            (r#"{"a\\":["x",1,{}],"b":[]}"#, 7),
            (r#"[[[["#, 4),
            (r#"",,,,"#, 0),
        ] {
            assert_eq!(values_in(json.as_bytes()), values, "{json}");
        }
    }

    #[test]
    fn json_errors_are_dockers() {
        type Map = BTreeMap<String, u32>;
        assert_eq!(parse_json::<Map>(b"null"), Ok(Map::new()));
        assert_eq!(parse_json::<Map>(b"{} x").map_err(|f| f.message), Err("unexpected content after JSON".into()));
        let text = parse_json::<Map>(b" ").map_err(|f| f.message);
        assert_eq!(text, Err("invalid JSON: got EOF while reading request body".into()));
        assert!(
            parse_json::<Map>(b"{\"a\":-1}").is_err_and(|f| f.status == 400 && f.message.starts_with("invalid JSON: "))
        );
    }
}
