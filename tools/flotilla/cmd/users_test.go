package cmd_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// With --user, or its variables, every command acts for a user; Flotilla's own are for root users. What is missing is
// said.
func TestCommandsOfUsers(t *testing.T) {
	besideOthers(t)
	sh := newShellAt(t, "")
	endpoints, _ := strings.CutPrefix(sh.env[len(sh.env)-1], "FLOTILLA_ENDPOINTS=")
	anybody, err := clientv3.New(clientv3.Config{Endpoints: strings.Split(endpoints, ","), Logger: zap.NewNop(), DialTimeout: time.Minute})
	require.NoError(t, err)
	defer anybody.Close()
	do := func(_ any, err error) {
		t.Helper()
		require.NoError(t, err)
	}
	do(anybody.UserAdd(t.Context(), "root", "r"))
	do(anybody.UserGrantRole(t.Context(), "root", "root"))
	do(anybody.UserAdd(t.Context(), "ann", "a:b"))
	do(anybody.RoleAdd(t.Context(), "opener"))
	do(anybody.RoleGrantPermission(t.Context(), "opener", "open", "", clientv3.PermissionType(clientv3.PermReadWrite)))
	do(anybody.UserGrantRole(t.Context(), "ann", "opener"))
	do(anybody.AuthEnable(t.Context()))
	for script, want := range map[string]string{
		"flotilla get open":                                      "user name is empty; authentication is enabled: say who you are with --user",
		"flotilla node ls":                                       "user name is empty; authentication is enabled: say who you are with --user",
		"flotilla --user ann:a:b put open 1":                     "OK",
		"FLOTILLA_USER=ann:a:b flotilla put shut":                "permission denied; the user's roles do not allow it",
		"ETCDCTL_USER=ann ETCDCTL_PASSWORD=a:b flotilla node ls": "permission denied",
		"flotilla --user root --password r node ls":              "n3",
		"flotilla --user root:r shard check --help":              "flotilla shard check 3",
		"flotilla --user ann:wrong get open":                     `log in as "ann": etcdserver: authentication failed, invalid user ID or password`,
		"flotilla --user ann get open":                           "--user ann has no password",
		"flotilla --password r get open":                         "--password is that of --user, which is missing",
		"flotilla --user root:r endpoint health --cluster":       "is healthy",
	} {
		if strings.HasSuffix(script, "put shut") {
			script += " 1"
		}
		require.Contains(t, sh.run(t, script), want, script)
	}
	refused := sh.run(t, "flotilla --user ann:a:b doctor; echo code $?")
	require.Contains(t, refused, "flotilla: the cluster was not looked at: ")
	require.Contains(t, refused, "permission denied; the user's roles do not allow it")
	require.True(t, strings.HasSuffix(refused, "\ncode 1\n"), refused)
	require.NotContains(t, refused, "ok ")
}
