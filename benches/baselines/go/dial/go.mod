module dial

go 1.19
