//! Where the coordinator of a campaign listens, as whoever places workers finds it in the campaign's folder.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use db::Owner;
use serde::{Deserialize, Serialize};

use super::tls::{Identity, Token};

/// How workers reach a coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Whereabouts {
    /// `HOST:PORT`.
    pub(crate) address: String,
    /// Without encryption.
    pub(crate) plain: bool,
}

impl Whereabouts {
    /// Of a coordinator that listens there: by the name of its machine if on all of its addresses.
    pub(crate) fn of(listens: SocketAddr, plain: bool) -> Self {
        let address = if listens.ip().is_unspecified() {
            format!("{}:{}", Owner::current().host, listens.port())
        } else {
            listens.to_string()
        };
        Self { address, plain }
    }

    /// Writes it into the campaign's folder.
    pub(crate) fn keep(&self, folder: &Path) -> anyhow::Result<()> {
        let file = file(folder);
        let text = serde_json::to_string(self)?;
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// That of the coordinator that listened last; none: none has.
    pub(crate) fn find(folder: &Path) -> Option<Self> {
        serde_json::from_str(&std::fs::read_to_string(file(folder)).ok()?).ok()
    }
}

fn file(folder: &Path) -> PathBuf {
    folder.join("coordinator.json")
}

/// The file of a coordinator's identity in the campaign's folder.
pub(crate) fn identity(folder: &Path) -> PathBuf {
    folder.join("coordinator.pem")
}

/// The token of a campaign's coordinator, also of one that is yet to come.
pub(crate) fn token(folder: &Path) -> anyhow::Result<Token> {
    Ok(Identity::keep(&identity(folder))?.token())
}
