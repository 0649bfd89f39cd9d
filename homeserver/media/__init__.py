"""The content repository: files of users and of other servers."""
