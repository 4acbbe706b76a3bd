"""Why a request was answered as it was: the record it leaves, its replay, and the words for people."""
