//! The targets.

mod csr;
mod frames;
mod gossip;
mod grants;
mod grpc;
mod http;
mod json;
mod names;
mod sealed;
mod store;
mod templates;
mod tokens;

/// One door and what must hold there.
#[derive(Clone, Copy)]
pub struct Target {
    /// For the command line.
    pub name: &'static str,
    /// Which parser it is, for people.
    pub about: &'static str,
    /// Honest inputs.
    pub corpus: fn() -> Vec<Vec<u8>>,
    /// Words that matter there.
    pub words: &'static [&'static [u8]],
    /// Longer inputs are not tried.
    pub bytes_max: usize,
    /// Begins anew: what takes one input after another, and says what is wrong with what became of it.
    pub start: fn() -> Taker,
}

/// Takes inputs.
pub type Taker = Box<dyn FnMut(&[u8]) -> Result<(), String>>;

/// All targets.
pub fn all() -> &'static [Target] {
    &[
        tokens::TARGET,
        csr::TARGET,
        gossip::TARGET,
        grants::TARGET,
        grpc::TARGET,
        http::TARGET,
        json::TARGET,
        names::TARGET,
        sealed::TARGET,
        store::TARGET,
        templates::TARGET,
        frames::TARGET,
    ]
}

/// The target of a name.
pub fn find(name: &str) -> Option<&'static Target> {
    all().iter().find(|target| target.name == name)
}

/// The texts of a corpus.
fn texts(of: &[&str]) -> Vec<Vec<u8>> {
    of.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// An error when a condition does not hold.
fn must(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever is honest must pass, and a few hundred bent inputs of each target as well, in every test run.
    #[test]
    fn honest_inputs_and_a_few_hundred_bent_ones_pass() {
        for target in all() {
            let corpus = (target.corpus)();
            assert!(!corpus.is_empty(), "{} has no corpus", target.name);
            let mut take = (target.start)();
            for (n, input) in corpus.iter().enumerate() {
                take(input).unwrap_or_else(|why| panic!("{}, honest input {n}: {why}", target.name));
            }
            for iteration in 0..300 {
                let input = crate::run::input(target, &corpus, 1, iteration);
                take(&input).unwrap_or_else(|why| panic!("{}, iteration {iteration} of seed 1: {why}", target.name));
            }
        }
    }

    #[test]
    fn names_are_unique_and_found() {
        for target in all() {
            assert_eq!(all().iter().filter(|t| t.name == target.name).count(), 1);
            assert!(find(target.name).is_some_and(|t| t.about == target.about));
        }
        assert!(find("no such target").is_none());
    }
}
