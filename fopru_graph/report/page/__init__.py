"""An evaluation's results folder as one page, with its figures and tables; read from plain files, without torch."""
