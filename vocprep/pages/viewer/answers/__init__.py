"""The answers to the page's questions, each a function of the session and a query."""
