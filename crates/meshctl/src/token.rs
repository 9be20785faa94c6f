//! `meshctl token`: enrolment tokens. A token is a secret: it is printed once, alone, on stdout.

use crate::answer::Answer;
use crate::client::Client;
use crate::failure::Failure;
use crate::table::{Rows, or_dash};
use clap::Subcommand;
use wire::admin::{TokenCreated, TokenInfo, TokenRequest};
use wire::name::NodeName;

/// A verb of `meshctl token`.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create a single-use token and print it, alone, on stdout.
    Create {
        /// The only name that it admits; also lets an existing name enrol with a new key.
        #[arg(long)]
        name: Option<NodeName>,
        /// Seconds until it ends; one hour unless told.
        #[arg(long, value_name = "S")]
        ttl_seconds: Option<u64>,
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
        Verb::Create { name, ttl_seconds } => {
            let form = TokenRequest { name, ttl_seconds };
            let reply = client.post_form("/v1/tokens", &form).await?;
            let created: TokenCreated = reply.form()?;
            answer.show(&reply, |created: TokenCreated| created.token)?;
            answer.remark(&format!(
                "token {} can be used once, until {}",
                created.id, created.expires_utc
            ));
            Ok(())
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

fn table(tokens: &[TokenInfo]) -> String {
    let mut rows = Rows::new(&["ID", "STATE", "NAME", "USED BY", "CREATED", "EXPIRES"]);
    for token in tokens {
        rows.row([
            token.id.clone(),
            token.state.clone(),
            or_dash(token.name.as_ref()),
            or_dash(token.used_by.as_ref()),
            token.created_utc.clone(),
            token.expires_utc.clone(),
        ]);
    }
    rows.render("No tokens.")
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
