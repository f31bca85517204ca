//! For stores without conditional requests (`conditional_create = off`): looks before it writes.
//!
//! Between the look and the write somebody else may create the object, and would be overwritten. What protects then is the
//! lease of the node alone, and that lease is taken with the same looks. Two runs for one node that begin within the same
//! moment are not told apart.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// See the module.
#[derive(Debug)]
pub struct Unconditional(pub Arc<dyn ObjectStore>);

impl fmt::Display for Unconditional {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Unconditional {
    async fn check(&self, location: &Path, mode: &PutMode) -> Result<()> {
        let found = match self.0.head(location).await {
            Ok(found) => Some(found),
            Err(Error::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        let path = location.to_string();
        match mode {
            PutMode::Overwrite => Ok(()),
            PutMode::Create if found.is_none() => Ok(()),
            PutMode::Create => Err(Error::AlreadyExists { path, source: "it is there already".into() }),
            PutMode::Update(expected) => {
                let is_same = found.is_some_and(|found| found.e_tag.is_some() && found.e_tag == expected.e_tag);
                is_same.then_some(()).ok_or_else(|| Error::Precondition { path, source: "it was changed".into() })
            }
        }
    }
}

#[async_trait]
impl ObjectStore for Unconditional {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.check(location, &options.mode).await?;
        self.0.put_opts(location, payload, PutOptions { mode: PutMode::Overwrite, ..options }).await
    }

    /// Looks at the end: a large file takes its time.
    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.0.put_multipart_opts(location, options).await?;
        Ok(Box::new(Upload { inner, store: Self(Arc::clone(&self.0)), location: location.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct Upload {
    inner: Box<dyn MultipartUpload>,
    store: Unconditional,
    location: Path,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> object_store::UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.store.check(&self.location, &PutMode::Create).await?;
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use object_store::UpdateVersion;
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn nothing_is_overwritten_unless_that_is_asked_for() {
        let store = Unconditional(Arc::new(InMemory::new()));
        let path = Path::from("a/b");
        let create = || PutOptions::from(PutMode::Create);
        let first = store.put_opts(&path, "one".into(), create()).await.unwrap();
        let taken = store.put_opts(&path, "two".into(), create()).await;
        assert!(matches!(taken, Err(Error::AlreadyExists { .. })));
        let update = |e_tag| PutOptions::from(PutMode::Update(UpdateVersion { e_tag, version: None }));
        let second = store.put_opts(&path, "three".into(), update(first.e_tag.clone())).await.unwrap();
        let late = store.put_opts(&path, "four".into(), update(first.e_tag)).await;
        assert!(matches!(late, Err(Error::Precondition { .. })));
        store.put_opts(&path, "five".into(), update(second.e_tag)).await.unwrap();
        let other = Path::from("a/c");
        let mut upload = store.put_multipart(&other).await.unwrap();
        upload.put_part("six".into()).await.unwrap();
        store.put(&other, "seven".into()).await.unwrap();
        assert!(matches!(upload.complete().await, Err(Error::AlreadyExists { .. })));
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "five");
    }
}
