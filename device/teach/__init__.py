"""Teaching: a classifier of the user's own things, fitted on the features of a pretrained net."""
