//! Offline work on a store directory: hand it back to a stock broker, or compare it with one.

use std::path::PathBuf;

use ::store::{Store, UNITS_PER_FILE};
use anyhow::{Result, bail};
use broker::config::Config;
use broker::{config_files, topics};
use clap::{Args as ClapArgs, Subcommand};

/// Look after a store that no broker has open.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write consume queues and marks, so that a stock broker finds everything when it opens the directory.
    Export(Place),
    /// Compare our queues with the consume queues a stock broker left in the directory, unit by unit.
    Verify(Place),
}

/// A store directory and how it was configured.
#[derive(Debug, ClapArgs)]
struct Place {
    /// The store's root (storePathRootDir).
    root: PathBuf,
    /// The broker key and value it was written with, where it is not the default.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

#[expect(clippy::print_stdout, reason = "this is what the command says")]
pub(crate) fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Export(place) => {
            let store = open(&place)?;
            let topics = config_files::read(&place.root).topics.value.topic_config_table;
            let whole = |topic: &str| topics.get(topic).is_some_and(topics::keeps_batches_whole);
            store.close_for_stock(UNITS_PER_FILE, whole)?;
            println!("{} can be opened by a stock broker", place.root.display());
        }
        Command::Verify(place) => {
            let store = open(&place)?;
            let queues = ["consumequeue", "consumequeue.stock"].map(|name| place.root.join(name));
            let Some(queues) = queues.iter().find(|folder| folder.is_dir()) else {
                bail!("{} holds no consume queues of a stock broker", place.root.display());
            };
            let comparison = store.verify_against_stock_queues(queues)?;
            println!("{comparison:?}");
            store.close()?;
            if !comparison.differences.is_empty() {
                bail!("the queues differ");
            }
        }
    }
    Ok(())
}

fn open(place: &Place) -> Result<std::sync::Arc<Store>> {
    let mut given = crate::roles::flag_pairs(&place.settings)?;
    given.push(("storePathRootDir".to_owned(), place.root.display().to_string()));
    let mut settings = broker::process::store_settings(&Config::new(given)?);
    settings.maintenance = false;
    Ok(Store::open(settings)?)
}
