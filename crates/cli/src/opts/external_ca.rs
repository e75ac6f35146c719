//! `--external-ca`: an authority elsewhere that signs certificates.

use super::mount::fields;
use crate::context::Context;
use crate::error::CliError;
use docker_api::ExternalCa;
use std::path::PathBuf;

/// One authority, before its certificate is read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ExternalCaFlag {
    ca: ExternalCa,
    ca_cert: Option<PathBuf>,
}

/// Parses `protocol=cfssl,url=https://…[,cacert=FILE]`; other keys are options.
pub(crate) fn external_ca(text: &str) -> Result<ExternalCaFlag, String> {
    let mut flag = ExternalCaFlag { ca: ExternalCa::default(), ca_cert: None };
    let (mut protocol, mut url) = (false, false);
    for field in fields(text)? {
        let (key, value) =
            field.split_once('=').ok_or_else(|| format!("invalid field '{field}' must be a key=value pair"))?;
        match key.to_ascii_lowercase().as_str() {
            "protocol" if value.eq_ignore_ascii_case("cfssl") => {
                protocol = true;
                flag.ca.protocol = "cfssl".to_owned();
            }
            "protocol" => return Err(format!("unrecognized external CA protocol {value}")),
            "url" => {
                url = true;
                flag.ca.url = value.to_owned();
            }
            "cacert" => flag.ca_cert = Some(value.into()),
            _ => drop(flag.ca.options.insert(key.to_owned(), value.to_owned())),
        }
    }
    match (protocol, url) {
        (false, _) => Err("the external-ca option needs a protocol= parameter".to_owned()),
        (_, false) => Err("the external-ca option needs a url= parameter".to_owned()),
        (true, true) => Ok(flag),
    }
}

/// What is sent for these flags. One that names no certificate signs under `ca_cert`.
pub(crate) async fn external_cas(
    ctx: &Context,
    flags: &[ExternalCaFlag],
    ca_cert: &str,
) -> Result<Vec<ExternalCa>, CliError> {
    let mut cas = Vec::new();
    for flag in flags {
        let ca_cert = match &flag.ca_cert {
            None => ca_cert.to_owned(),
            Some(path) => {
                let text = ctx.read_text(path).await?;
                if !text.contains("-----BEGIN ") {
                    return Err(CliError::text("CA cert for external CA must be in PEM format"));
                }
                text
            }
        };
        cas.push(ExternalCa { ca_cert, ..flag.ca.clone() });
    }
    Ok(cas)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_named_in_dockers_words() {
        let flag = external_ca("Protocol=CFSSL,url=https://ca/sign?a=b,cacert=/ca.pem,\"note=a,b\"").unwrap();
        assert_eq!((flag.ca.protocol.as_str(), flag.ca.url.as_str()), ("cfssl", "https://ca/sign?a=b"));
        assert_eq!(flag.ca.options, [("note".to_owned(), "a,b".to_owned())].into());
        assert_eq!(flag.ca_cert, Some("/ca.pem".into()));
        for (text, words) in [
            ("", "invalid field '' must be a key=value pair"),
            ("cfssl", "invalid field 'cfssl' must be a key=value pair"),
            ("protocol=acme,url=https://ca", "unrecognized external CA protocol acme"),
            ("url=https://ca", "the external-ca option needs a protocol= parameter"),
            ("protocol=cfssl", "the external-ca option needs a url= parameter"),
        ] {
            assert_eq!(external_ca(text).unwrap_err(), words, "{text}");
        }
    }
}
