"""Rules of single sign-on: claims, names of new accounts, and addresses to return to."""
