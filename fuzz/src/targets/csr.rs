//! Certificate requests and certificates.

use super::{Taker, Target, must};
use rustls_pki_types::CertificateDer;

pub(super) const TARGET: Target = Target {
    name: "csr",
    about: "certificate requests and certificates: ca::Csr, ca::Peer, ca::describe_root",
    corpus,
    words: &[
        b"-----BEGIN CERTIFICATE REQUEST-----\n",
        b"-----END CERTIFICATE REQUEST-----\n",
        b"-----BEGIN CERTIFICATE-----\n",
        b"-----END CERTIFICATE-----\n",
        b"\x30\x82",
        b"\x30\x84\xff\xff\xff\xff",
        b"\x30\x80",
        b"\x02\x01",
        b"\x06\x03\x55\x04\x03",
        b"\x0c\x0dswarm-manager",
        b"\xa0\x00",
        b"\x03\x42\x00\x04",
    ],
    bytes_max: 16 * 1024,
    start,
};

/// PEM as it comes, and DER, which the target wraps. Files, and not made here: an input is a function of its number.
fn corpus() -> Vec<Vec<u8>> {
    let files = [
        include_bytes!("../../corpus/request.pem").to_vec(),
        include_bytes!("../../corpus/leaf.pem").to_vec(),
        include_bytes!("../../corpus/root.pem").to_vec(),
    ];
    let der = |text: &Vec<u8>| pem::parse(text).map(pem::Pem::into_contents).expect("the files are PEM");
    files.iter().cloned().chain(files.iter().map(der)).collect()
}

fn start() -> Taker {
    Box::new(|input| {
        let text = String::from_utf8_lossy(input);
        let wrapped = |tag: &str| pem::encode(&pem::Pem::new(tag, input));
        for request in [text.clone().into_owned(), wrapped("CERTIFICATE REQUEST")] {
            if let Err(error) = ca::Csr::parse(&request) {
                must(error.to_string().starts_with("invalid certificate request: "), || error.to_string())?;
            }
        }
        let leaf = CertificateDer::from(input.to_vec());
        let (_peer, _end) = (ca::Peer::from_certificate(&leaf).is_ok(), ca::expires_at(&leaf).is_ok());
        let _described = (ca::describe_root(&text), ca::describe_root(&wrapped("CERTIFICATE")));
        Ok(())
    })
}
