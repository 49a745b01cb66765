module maskwire

go 1.19
