//! Join tokens.

use super::{Taker, Target, must, texts};
use model::JoinTokens;

const ROOT: &str = "a root certificate";
const WORKER: &str = "SWMTKN-1-3pu6hszjas19xyp7ghgosyx9k8atbfcr8p2is99znpy26u2lkl-1awxwuwd3z9j1z3puu7rcgdbx";
const MANAGER: &str = "SWMTKN-1-3pu6hszjas19xyp7ghgosyx9k8atbfcr8p2is99znpy26u2lkl-7p73s1dx5in4tatdymyhg9hu2";

pub(super) const TARGET: Target = Target {
    name: "tokens",
    about: "join tokens: ca::JoinToken, ca::admitted_role",
    corpus: || texts(&[WORKER, MANAGER, "SWMTKN-2-x-y", "SWMKEY-1-7c37Cc8654o6p38HnroywCi19pllOnGtbdZEgtKxZu8"]),
    words: &[b"SWMTKN", b"-1-", b"-", b"SWMTKN-1-", b"SWMKEY-1-", b"\0", b"\n", "é".as_bytes(), b"0", b"z", b"A"],
    bytes_max: 4096,
    start,
};

fn start() -> Taker {
    let tokens = JoinTokens { worker: WORKER.into(), manager: MANAGER.into() };
    Box::new(move |input| {
        let text = String::from_utf8_lossy(input);
        let admits = ca::admitted_role(&text, &tokens).is_some();
        must(admits == (text == WORKER || text == MANAGER), || format!("`{text}` admits: {admits}"))?;
        if let Ok(token) = text.parse::<ca::JoinToken>() {
            must(token.to_string() == text, || format!("`{text}` is read as `{token}`"))?;
            must(token.check_root(ROOT).is_err(), || "a made-up token names a made-up root".into())?;
            let shown = format!("{token:?}");
            let secret = text.rsplit('-').next().unwrap_or_default();
            must(!shown.contains(secret), || format!("`{shown}` shows the secret"))?;
        }
        Ok(())
    })
}
