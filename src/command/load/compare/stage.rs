//! All processes of a comparison, and how they end: the server, the weft pair, the plug-ins.

use std::net::SocketAddr;
use std::path::Path;

use weft_loadtest::compare::answer::Answer;
use weft_loadtest::compare::document::Variant;
use weft_loadtest::compare::{CONTROL, DIRECT, WEFT};

use super::plugin::{Plugin, PluginContext};
use super::weft::WeftPair;
use super::wire::{Wire, free_ports};
use super::{BODY_BYTES, call};
use crate::children::Children;
use crate::failure::Failure;

/// The running processes.
pub struct Stage<'a> {
    wire: &'a Wire,
    directory: &'a Path,
    workers: usize,
    /// Where the server listens.
    server: SocketAddr,
    body: Option<usize>,
    host: Children,
    weft: Option<WeftPair>,
    plugins: Vec<Plugin>,
    /// By variant, those that are up.
    up: Vec<(String, Answer)>,
}

impl<'a> Stage<'a> {
    /// Nothing started yet.
    pub fn new(
        wire: &'a Wire,
        directory: &'a Path,
        workers: usize,
        plugins: Vec<Plugin>,
    ) -> Result<Self, Failure> {
        let [port] = free_ports()?;
        Ok(Self {
            wire,
            directory,
            workers,
            server: SocketAddr::new(wire.server, port),
            body: None,
            host: Children::behind(wire.to_server(), directory)?,
            weft: None,
            plugins,
            up: Vec::new(),
        })
    }

    /// The pairs, in the order of the table.
    pub fn pairs(&self) -> Vec<String> {
        let plugins = self.plugins.iter().map(|plugin| plugin.name.clone());
        std::iter::once(WEFT.to_owned()).chain(plugins).collect()
    }

    /// Makes the server answer with `body` bytes. The server is restarted for that, and proxies connect to it
    /// anew.
    pub async fn serve(&mut self, body: usize) -> Result<(), Failure> {
        if self.body == Some(body) {
            return Ok(());
        }
        self.host.stop("server").await;
        let (address, size) = (self.server.to_string(), format!("{body}B"));
        let arguments = ["load", "serve", "--http", &address, "--body", &size];
        self.host.start("server", &arguments)?;
        call::until_answered(self.server, || self.host.check()).await?;
        self.body = Some(body);
        Ok(())
    }

    /// Starts a pair, if it is not up.
    pub async fn start(&mut self, name: &str) -> Result<(), Failure> {
        if self.up.iter().any(|(known, _)| known == name) {
            return Ok(());
        }
        self.serve(BODY_BYTES).await?;
        let answer = if let Some(plugin) = self.plugins.iter_mut().find(|one| one.name == name) {
            let told = PluginContext {
                wire: self.wire,
                server: self.server,
                directory: self.directory,
                workers: self.workers,
            };
            plugin.start(&told).await?
        } else {
            if self.weft.is_none() {
                let pair = WeftPair::new(self.wire, self.directory, self.workers, self.server);
                self.weft = Some(pair.await?);
            }
            match &mut self.weft {
                Some(weft) => weft.start().await?,
                None => return Ok(()),
            }
        };
        self.up.push((name.to_owned(), answer));
        Ok(())
    }

    /// Ends a pair; it can be started again.
    pub async fn stop(&mut self, name: &str) {
        self.up.retain(|(known, _)| known != name);
        if let Some(plugin) = self.plugins.iter_mut().find(|one| one.name == name) {
            plugin.stop().await;
        } else if let Some(weft) = &mut self.weft {
            weft.stop().await;
        }
    }

    /// The address of a variant that is up; the control is the weft pair itself.
    pub fn answer(&self, variant: &str) -> Option<Answer> {
        if variant == DIRECT {
            return Some(Answer {
                version: "no proxy".to_owned(),
                http: Some(self.server),
                tcp: Some(self.server),
                processes: Vec::new(),
            });
        }
        let name = if variant == CONTROL { WEFT } else { variant };
        let mut up = self.up.iter();
        up.find(|(known, _)| known == name)
            .map(|(_, answer)| answer.clone())
    }

    /// The variants for people, in the order of the table. All must be up.
    pub fn variants(&self) -> Vec<Variant> {
        let names = std::iter::once(DIRECT.to_owned()).chain(self.pairs());
        let described = names.map(|name| Variant {
            version: self
                .answer(&name)
                .map_or_else(String::new, |answer| answer.version),
            command: self
                .plugins
                .iter()
                .find(|one| one.name == name)
                .map(Plugin::program),
            name,
        });
        described.collect()
    }

    /// Fails if a process that is needed has ended.
    pub fn check(&mut self) -> Result<(), Failure> {
        self.host.check()?;
        if let Some(weft) = &mut self.weft {
            weft.check()?;
        }
        self.plugins.iter_mut().try_for_each(Plugin::check)
    }

    /// Ends everything.
    pub async fn end(mut self) {
        for plugin in &mut self.plugins {
            plugin.stop().await;
        }
        if let Some(weft) = self.weft {
            weft.end().await;
        }
        self.host.end().await;
    }
}
