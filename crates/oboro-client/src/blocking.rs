//! The client for programs without an asynchronous runtime.

use crate::{ClientConfig, ClientError, IndexSummary, SearchOptions, SearchResult};

/// A [`Client`](crate::Client) with a runtime of its own.
///
/// Everything, the connection included, runs on the calling thread: no
/// hand-off between threads makes a query wait.
pub struct Client {
    runtime: tokio::runtime::Runtime,
    client: crate::Client,
}

impl Client {
    /// As [`crate::Client::connect`].
    ///
    /// # Errors
    /// As [`crate::Client::connect`], and when the system gives no runtime.
    pub fn connect(config: ClientConfig) -> Result<Self, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| ClientError::System(error.to_string()))?;
        let client = runtime.block_on(crate::Client::connect(config))?;
        Ok(Self { runtime, client })
    }

    /// What is known about the index.
    #[must_use]
    pub fn index(&self) -> IndexSummary {
        self.client.index()
    }

    /// The searcher's platform is simulated and protects nothing.
    #[must_use]
    pub fn is_simulated(&self) -> bool {
        self.client.is_simulated()
    }

    /// As [`crate::Client::search`].
    ///
    /// # Errors
    /// As [`crate::Client::search`].
    pub fn search(
        &self,
        vector: &[f32],
        options: &SearchOptions,
    ) -> Result<SearchResult, ClientError> {
        self.runtime.block_on(self.client.search(vector, options))
    }

    /// As [`crate::Client::search_many`].
    ///
    /// # Errors
    /// As [`crate::Client::search_many`].
    pub fn search_many(
        &self,
        queries: Vec<Vec<f32>>,
        options: &SearchOptions,
        concurrency: usize,
    ) -> Result<Vec<SearchResult>, ClientError> {
        self.runtime
            .block_on(self.client.search_many(queries, options, concurrency))
    }
}
