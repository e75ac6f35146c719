//! Waiting on conditions, never on time.

use crate::Outcome;
use std::time::Duration;
use tokio::time::Instant;

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(50);

/// Asks until the answer is there; says what was missing when it does not come within `limit`.
pub async fn until<T, F>(what: &str, limit: Duration, mut ask: impl FnMut() -> F) -> Outcome<T>
where
    F: Future<Output = Outcome<T>>,
{
    let deadline = Instant::now() + limit;
    loop {
        let missing = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(missing) => missing,
        };
        if Instant::now() >= deadline {
            return Err(format!("{what}: not within {:.0} s: {missing}", limit.as_secs_f64()));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The same for something that needs no waiting itself.
pub async fn until_now<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Outcome<T>) -> Outcome<T> {
    until(what, limit, || std::future::ready(ask())).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_comes_or_it_says_what_is_missing() {
        let mut asked = 0;
        let third = until_now("third", Duration::from_secs(1), || {
            asked += 1;
            if asked == 3 { Ok(asked) } else { Err(format!("only {asked}")) }
        });
        assert_eq!(third.await, Ok(3));
        let never: Outcome<()> = until_now("never", Duration::from_secs(1), || Err("nothing".into())).await;
        assert_eq!(never, Err("never: not within 1 s: nothing".into()));
    }
}
