//! `meshctl token`: enrolment tokens. A token is a secret: it is printed once, alone, on stdout, or goes into a
//! new file that only its owner can read.

use crate::answer::Answer;
use crate::client::Client;
use crate::failure::Failure;
use crate::files::SecretFile;
use crate::table::{DASH, Rows, or_dash};
use clap::Subcommand;
use serde_json::json;
use std::path::{Path, PathBuf};
use wire::admin::{TokenCreated, TokenInfo, TokenRequest};
use wire::name::{NodeName, SegmentName};

/// A verb of `meshctl token`.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create a token and print it, alone, on stdout; it admits one node unless told.
    Create {
        /// The only name that it admits; also lets an existing name enrol with a new key.
        #[arg(long)]
        name: Option<NodeName>,
        /// Seconds until it ends; one hour unless told.
        #[arg(long, value_name = "S")]
        ttl_seconds: Option<u64>,
        /// How many nodes may enrol with it, up to 1000; not together with --name.
        #[arg(long, value_name = "N", conflicts_with = "name")]
        reusable: Option<u32>,
        /// A segment that a node may ask for, the first the one of a node that names none; repeatable
        /// [default: the mesh's first]
        #[arg(long, value_name = "NAME")]
        segment: Vec<SegmentName>,
        /// A new file for the token, of mode 0600, instead of stdout; never overwritten.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// List tokens, without their secrets.
    List,
    /// Revoke a token that was not used.
    Revoke {
        /// Its id in the list.
        #[arg(value_parser = token_id)]
        id: String,
    },
}

/// Runs the command.
pub(crate) async fn run(verb: Verb, client: &Client, answer: &Answer) -> Result<(), Failure> {
    match verb {
        Verb::Create {
            name,
            ttl_seconds,
            reusable,
            segment,
            output,
        } => {
            let form = TokenRequest {
                name,
                ttl_seconds,
                uses: reusable,
                segments: segment,
            };
            create(&form, output.as_deref(), client, answer).await
        }
        Verb::List => {
            let reply = client.get("/v1/tokens").await?;
            answer.show(&reply, |tokens: Vec<TokenInfo>| table(&tokens))
        }
        Verb::Revoke { id } => {
            let reply = client.delete(&format!("/v1/tokens/{id}")).await?;
            if answer.is_json() {
                answer.value(reply.raw())
            } else {
                answer.text(&format!("token {id} is revoked"))
            }
        }
    }
}

async fn create(
    form: &TokenRequest,
    output: Option<&Path>,
    client: &Client,
    answer: &Answer,
) -> Result<(), Failure> {
    // Before the token is made: one that has nowhere to go would stay open unseen.
    let file = output.map(SecretFile::create).transpose()?;
    let reply = client.post_form("/v1/tokens", form).await?;
    let created: TokenCreated = reply.form()?;
    match (file, output) {
        (Some(file), Some(path)) => {
            file.fill(format!("{}\n", created.token).as_bytes())?;
            if answer.is_json() {
                let (id, until) = (&created.id, &created.expires_utc);
                let kept = json!({ "id": id, "expires_utc": until, "file": path });
                answer.value(&kept)?;
            }
        }
        _ => answer.show(&reply, |created: TokenCreated| created.token)?,
    }
    let times = match form.uses {
        None | Some(1) => "once".to_owned(),
        Some(uses) => format!("{uses} times"),
    };
    let (id, until) = (&created.id, &created.expires_utc);
    answer.remark(&format!("token {id} can be used {times}, until {until}"));
    Ok(())
}

pub(crate) fn table(tokens: &[TokenInfo]) -> String {
    let mut rows = Rows::new(&[
        "ID", "STATE", "USES", "NAME", "SEGMENTS", "USED BY", "CREATED", "EXPIRES",
    ]);
    for token in tokens {
        rows.row([
            token.id.clone(),
            token.state.clone(),
            format!("{} of {}", token.used_by.len(), token.uses),
            or_dash(token.name.as_ref()),
            segments(&token.segments),
            used_by(&token.used_by),
            token.created_utc.clone(),
            token.expires_utc.clone(),
        ]);
    }
    rows.render("No tokens.")
}

fn segments(names: &[SegmentName]) -> String {
    let names: Vec<&str> = names.iter().map(SegmentName::as_str).collect();
    if names.is_empty() {
        return DASH.into();
    }
    names.join(", ")
}

/// The nodes that used a token, the last ones if they are many.
fn used_by(names: &[NodeName]) -> String {
    let (more, shown) = names.split_at(names.len().saturating_sub(SHOWN));
    let mut words: Vec<&str> = shown.iter().map(NodeName::as_str).collect();
    let more = format!("and {} more", more.len());
    if names.len() > SHOWN {
        words.push(&more);
    }
    if words.is_empty() {
        return DASH.into();
    }
    words.join(", ")
}

/// Accepts what needs no escaping in a path.
fn token_id(text: &str) -> Result<String, &'static str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        // Not quoted: somebody may have pasted the token itself.
        Err("not a token's id; `meshctl token list` lists them")
    }
}

/// Names in a row; --json shows all of them.
const SHOWN: usize = 3;
