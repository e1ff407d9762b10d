package cmd

import (
	clientv3 "go.etcd.io/etcd/client/v3"
)

// spanFlags are the flags that select more than one key.
type spanFlags struct{ prefix, fromKey bool }

// span returns the key and the options for KEY [RANGE_END] and the flags.
func (f spanFlags) span(args []string) (string, []clientv3.OpOption, error) {
	switch {
	case len(args) < 1 || len(args) > 2:
		return "", nil, misused("%d arguments: want KEY or KEY RANGE_END", len(args))
	case f.prefix && f.fromKey:
		return "", nil, misused("--prefix and --from-key exclude each other")
	case len(args) == 2 && (f.prefix || f.fromKey):
		return "", nil, misused("a RANGE_END excludes --prefix and --from-key")
	case len(args) == 2:
		return args[0], []clientv3.OpOption{clientv3.WithRange(args[1])}, nil
	case f.fromKey || f.prefix && args[0] == "":
		key := args[0]
		if key == "" {
			key = "\x00" // the smallest key there can be
		}
		return key, []clientv3.OpOption{clientv3.WithFromKey()}, nil
	case f.prefix:
		return args[0], []clientv3.OpOption{clientv3.WithPrefix()}, nil
	}
	return args[0], nil, nil
}
