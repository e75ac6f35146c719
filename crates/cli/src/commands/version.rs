//! `swarmlite version`.

use crate::client::API_VERSION;
use crate::context::Context;
use crate::error::CliError;
use crate::format::template::Parsed;
use clap::Args;
use docker_api::Version;
use serde_json::json;

/// `version`.
#[derive(Args, Debug)]
pub(crate) struct VersionArgs {
    /// Format output using a custom template: 'json' or a Go template
    #[arg(short, long, value_name = "string")]
    format: Option<String>,
}

/// Prints both versions. That of the command line is printed even when there is no daemon.
pub(crate) async fn run(ctx: &Context, args: VersionArgs) -> Result<(), CliError> {
    let template = match args.format.as_deref() {
        None | Some("" | "json") => None,
        Some(format) => Some(Parsed::new(format)?),
    };
    let server = ctx.client.get::<Version>("/version", &[]).await;
    let os = std::env::consts::OS;
    let arch = go_arch(std::env::consts::ARCH);
    if args.format.as_deref().is_some_and(|f| !f.is_empty()) {
        let client = json!({"Version": env!("CARGO_PKG_VERSION"), "ApiVersion": API_VERSION, "Os": os, "Arch": arch});
        let data = json!({"Client": client, "Server": server.as_ref().ok()});
        match template {
            Some(template) => ctx.line(template.render(&data)?)?,
            None => ctx.line(crate::format::json::compact(&data))?,
        }
        return server.map(drop).map_err(Into::into);
    }
    let version = env!("CARGO_PKG_VERSION");
    ctx.line(format!("Client: Swarmlite\n Version:           {version}\n API version:       {API_VERSION}\n OS/Arch:           {os}/{arch}"))?;
    let server = server?;
    ctx.line(format!("\nServer: {}", name_of(&server)))?;
    ctx.out(&server_text(&server))
}

fn name_of(server: &Version) -> &str {
    if server.platform.name.is_empty() { "Swarmlite" } else { &server.platform.name }
}

fn server_text(server: &Version) -> String {
    let mut out = format!(
        " Swarmlite:\n  Version:          {}\n  API version:      {} (minimum version {})\n  OS/Arch:          {}/{}\n",
        server.version, server.api_version, server.min_api_version, server.os, server.arch
    );
    for part in server.components.iter().filter(|c| c.name != "Swarmlite") {
        out.push_str(&format!(" {}:\n  Version:          {}\n", part.name, part.version));
        if let Some(api) = part.details.get("ApiVersion") {
            out.push_str(&format!("  API version:      {api}\n"));
        }
    }
    out
}

/// Go's name of an architecture, which Docker's users know.
fn go_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
