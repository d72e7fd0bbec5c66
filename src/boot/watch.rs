//! Tells when a file of the configuration changes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::CreateKind;
use notify::{EventKind, RecursiveMode, Watcher as _};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Editors write, rename and touch; one reload for all of it.
pub const QUIET: Duration = Duration::from_millis(150);

/// Watches until dropped.
#[derive(Debug)]
pub struct Watch {
    watcher: notify::RecommendedWatcher,
    changes: Receiver<()>,
    /// A change was seen and not yet told: whoever waits may be interrupted.
    seen: bool,
}

/// Watches `directory`. To be called before anything in it is read, so that no edit falls between.
///
/// # Errors
/// What the system can't watch.
pub fn watch(directory: &Path) -> notify::Result<Watch> {
    let (tell, changes) = channel(1);
    let mut watcher = notify::recommended_watcher(move |event| told(&tell, event))?;
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    for below in ["policies", "policies/tests"] {
        let path = directory.join(below);
        if path.is_dir() {
            watcher.watch(&path, RecursiveMode::NonRecursive)?;
        }
    }
    Ok(Watch {
        watcher,
        changes,
        seen: false,
    })
}

fn told(tell: &Sender<()>, event: notify::Result<notify::Event>) {
    let relevant = event.is_ok_and(|event| {
        // A directory that is made, as at first run, says nothing yet.
        let changes = matches!(
            event.kind,
            EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_)
        ) && event.kind != EventKind::Create(CreateKind::Folder);
        let ours = |path: &PathBuf| {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            // The store of sessions changes all the time.
            !name.starts_with('.') && !name.ends_with(".redb") && !name.ends_with('~')
        };
        changes && event.paths.iter().any(ours)
    });
    if relevant {
        // One that waits already tells the same.
        let _ = tell.try_send(());
    }
}

impl Watch {
    /// Watches the files that the configuration names, too, wherever they are.
    ///
    /// # Errors
    /// What the system can't watch.
    pub fn also(&mut self, files: &[PathBuf]) -> notify::Result<()> {
        // A file that is replaced is another file: its directory is what stays.
        let mut parents: Vec<&Path> = files.iter().filter_map(|file| file.parent()).collect();
        parents.sort_unstable();
        parents.dedup();
        for parent in parents.into_iter().filter(|parent| parent.is_dir()) {
            self.watcher.watch(parent, RecursiveMode::NonRecursive)?;
        }
        Ok(())
    }

    /// Waits for a change, and until changes have paused. One that is dropped while it waits loses
    /// no change.
    pub async fn changed(&mut self) {
        if !self.seen && self.changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        self.seen = true;
        while let Ok(Some(())) = tokio::time::timeout(QUIET, self.changes.recv()).await {}
        self.seen = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_seen_by_an_interrupted_wait_is_told_to_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut watch = watch(directory.path()).unwrap();
            std::fs::write(directory.path().join("portcullis.toml"), "").unwrap();
            // Interrupted in the pause that follows a change.
            while !watch.seen {
                let _ = tokio::time::timeout(QUIET / 3, watch.changed()).await;
            }
            tokio::time::timeout(Duration::from_secs(20), watch.changed())
                .await
                .unwrap();
        });
    }
}
