//! Tells when a file of the configuration changes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use notify::{EventKind, RecursiveMode, Watcher as _};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Editors write, rename and touch; one reload for all of it.
pub const QUIET: Duration = Duration::from_millis(150);

/// Watches until dropped.
#[derive(Debug)]
pub struct Watch {
    watcher: notify::RecommendedWatcher,
    /// Where the TOML files are.
    homes: Vec<PathBuf>,
    /// The other files, shared with the watcher's thread.
    named: Arc<ArcSwap<Vec<PathBuf>>>,
    /// Directories that are watched.
    places: BTreeSet<PathBuf>,
    changes: Receiver<()>,
    /// A change was seen and not yet told: whoever waits may be interrupted.
    seen: bool,
}

/// Watches the TOML files of `directory` and its policies, and the other `files` that these name.
///
/// # Errors
/// What the system can't watch.
pub fn watch(directory: &Path, files: &[PathBuf]) -> notify::Result<Watch> {
    let (tell, changes) = channel(1);
    let homes: Vec<PathBuf> = [
        directory.to_owned(),
        directory.join("policies"),
        directory.join("policies/tests"),
    ]
    .iter()
    .map(|path| absolute(path))
    .collect();
    let named = Arc::<ArcSwap<Vec<PathBuf>>>::default();
    // Whatever else is written there, a log or the store of sessions, is no reason to reload.
    let ours = {
        let (homes, named) = (homes.clone(), Arc::clone(&named));
        move |path: &Path| {
            let is_toml = path
                .extension()
                .is_some_and(|extension| extension == "toml");
            let hidden = path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with('.'));
            let below = path
                .parent()
                .is_some_and(|parent| homes.iter().any(|home| home == parent));
            below && is_toml && !hidden || named.load().iter().any(|known| known == path)
        }
    };
    let mut watch = Watch {
        watcher: notify::recommended_watcher(move |event| told(&tell, event, &ours))?,
        homes,
        named,
        places: BTreeSet::new(),
        changes,
        seen: false,
    };
    watch.follow(files)?;
    Ok(watch)
}

/// As the system names it in events.
fn absolute(path: &Path) -> PathBuf {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let whole = std::fs::canonicalize(path);
    whole.unwrap_or_else(|_| {
        match (
            parent.and_then(|parent| parent.canonicalize().ok()),
            path.file_name(),
        ) {
            (Some(parent), Some(name)) => parent.join(name),
            _ => path.to_owned(),
        }
    })
}

fn told(tell: &Sender<()>, event: notify::Result<notify::Event>, ours: &impl Fn(&Path) -> bool) {
    let relevant = event.is_ok_and(|event| {
        let changes = matches!(
            event.kind,
            EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_)
        );
        changes && event.paths.iter().any(|path| ours(path))
    });
    if relevant {
        // One that waits already tells the same.
        let _ = tell.try_send(());
    }
}

impl Watch {
    /// Watches these named files from now on, instead of those before.
    ///
    /// # Errors
    /// What the system can't watch; the rest is watched all the same.
    pub fn follow(&mut self, files: &[PathBuf]) -> notify::Result<()> {
        let named: Vec<PathBuf> = files.iter().map(|file| absolute(file)).collect();
        // A file that is replaced is another file: its directory is what stays.
        let parents = named.iter().filter_map(|file| file.parent());
        let homes = self.homes.iter().map(PathBuf::as_path);
        let places: BTreeSet<PathBuf> = homes
            .chain(parents)
            .filter(|place| place.is_dir())
            .map(Path::to_owned)
            .collect();
        self.named.store(Arc::new(named));
        for gone in self.places.difference(&places) {
            // One that was removed is not watched any more.
            let _ = self.watcher.unwatch(gone);
        }
        self.places.retain(|place| places.contains(place));
        let mut result = Ok(());
        for place in places {
            if self.places.contains(&place) {
                continue;
            }
            match self.watcher.watch(&place, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.places.insert(place);
                }
                Err(error) => result = Err(error),
            }
        }
        result
    }

    /// Waits for a change, and until changes have paused. A wait that is dropped loses no change.
    pub async fn changed(&mut self) {
        if !self.seen && self.changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        self.seen = true;
        while let Ok(Some(())) = tokio::time::timeout(QUIET, self.changes.recv()).await {}
        self.seen = false;
    }
}
