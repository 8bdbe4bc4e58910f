"""The report of the audit. Each chapter is a module, which makes its sentences, tables and figures."""
