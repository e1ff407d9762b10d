package placement

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/flotilla-kv/flotilla/placement/placementpb"
)

// Root is the name of the user and of the role that may do everything.
const Root = "root"

// authBytesMax bounds users and roles together: every node keeps them in memory, and every change of them is sent whole
// to every node. It is enough for some ten thousand users.
const authBytesMax = 2 << 20

// Auth says who may do what. It is immutable, and its parts must not be modified.
type Auth struct {
	// Version is the map's version as of the last change.
	Version uint64
	// Revision counts changes as etcd does: from 1, and enabling is none.
	Revision uint64
	Enabled  bool
	// Armed says that nodes must not serve anybody by a copy of the map that may be old. It is set on all nodes before
	// Enabled is (P11).
	Armed bool
	// ArmedAt is the map's version that armed.
	ArmedAt uint64
	// TokenKey signs tokens while Enabled. Each time, it is another one.
	TokenKey []byte

	users []*placementpb.User // ascending by name
	roles []*placementpb.Role // ascending by name
}

// Auth returns who may do what.
func (m *Map) Auth() *Auth {
	if m.auth == nil {
		return &Auth{Revision: 1}
	}
	return m.auth
}

// Users returns all users, ascending by name.
func (a *Auth) Users() []*placementpb.User { return slices.Clip(a.users) }

// Roles returns all roles, ascending by name.
func (a *Auth) Roles() []*placementpb.Role { return slices.Clip(a.roles) }

// User returns a user, or nil.
func (a *Auth) User(name string) *placementpb.User {
	if i, found := findUser(a.users, name); found {
		return a.users[i]
	}
	return nil
}

// Role returns a role, or nil.
func (a *Auth) Role(name string) *placementpb.Role {
	if i, found := findRole(a.roles, name); found {
		return a.roles[i]
	}
	return nil
}

// IsRoot reports whether the user may do everything.
func IsRoot(u *placementpb.User) bool { return u != nil && hasRole(u, Root) }

// HasRootPassword reports whether somebody can show to be a root user.
func (a *Auth) HasRootPassword() bool {
	return slices.ContainsFunc(a.users, func(u *placementpb.User) bool { return IsRoot(u) && len(u.PasswordHash) > 0 })
}

func hasRole(u *placementpb.User, role string) bool {
	_, found := slices.BinarySearch(u.Roles, role)
	return found
}

func findUser(users []*placementpb.User, name string) (int, bool) {
	return slices.BinarySearchFunc(users, name, func(u *placementpb.User, name string) int { return cmp.Compare(u.Name, name) })
}

func findRole(roles []*placementpb.Role, name string) (int, bool) {
	return slices.BinarySearchFunc(roles, name, func(r *placementpb.Role, name string) int { return cmp.Compare(r.Name, name) })
}

// ChangeAuth is the command that changes who may do what.
func ChangeAuth(c *placementpb.ChangeAuth) *placementpb.Command {
	return &placementpb.Command{Body: &placementpb.Command_ChangeAuth{ChangeAuth: c}}
}

// changeAuth decides as etcd does, in the same order.
func (m *Map) changeAuth(c *placementpb.ChangeAuth) (*Map, *placementpb.Result) {
	if err := m.Auth().admits(c.ByUser); err != placementpb.AuthRefusal_AUTH_REFUSAL_NONE {
		return m, refuseAuth(err, c)
	}
	next := m.edit()
	a := *m.Auth()
	a.Version = next.version
	changed, counted, why := a.change(c)
	switch {
	case why != placementpb.AuthRefusal_AUTH_REFUSAL_NONE:
		return m, refuseAuth(why, c)
	case !changed:
		return m, ok()
	}
	if counted {
		a.Revision++
	}
	if size := a.proto().SizeVT(); size > authBytesMax {
		return m, refuse(placementpb.Code_FAILED_PRECONDITION, "flotilla: users and roles would take %d bytes, the most is %d; give users fewer roles, and roles ranges instead of many keys", size, authBytesMax)
	}
	if err := a.audit(); err != nil { // a command that no node of this version makes
		return m, invalid("change users or roles: %v", err)
	}
	next.auth = &a
	return next, ok()
}

// CheckAuth returns the error that the change would get.
func (m *Map) CheckAuth(c *placementpb.ChangeAuth) error {
	_, result := m.changeAuth(c)
	return ResultError(result)
}

func refuseAuth(why placementpb.AuthRefusal, c *placementpb.ChangeAuth) *placementpb.Result {
	r := refuse(placementpb.Code_FAILED_PRECONDITION, "%s of user %q, role %q: %s", c.Action, c.User, c.Role, why)
	r.Auth = why
	return r
}

// admits checks that a user may change users and roles.
func (a *Auth) admits(name string) placementpb.AuthRefusal {
	if !a.Enabled {
		return placementpb.AuthRefusal_AUTH_REFUSAL_NONE
	}
	user := a.User(name)
	switch {
	case name == "":
		return placementpb.AuthRefusal_USER_EMPTY
	case user == nil:
		return placementpb.AuthRefusal_USER_MISSING
	case !IsRoot(user):
		return placementpb.AuthRefusal_PERMISSION_DENIED
	}
	return placementpb.AuthRefusal_AUTH_REFUSAL_NONE
}

// change applies the command to a, whose slices are shared and replaced, never written into. counted says that
// the change raises the revision.
func (a *Auth) change(c *placementpb.ChangeAuth) (changed, counted bool, why placementpb.AuthRefusal) {
	const none = placementpb.AuthRefusal_AUTH_REFUSAL_NONE
	switch c.Action {
	case placementpb.AuthAction_ARM:
		if a.Armed {
			return false, false, none
		}
		a.Armed, a.ArmedAt = true, a.Version
		return true, false, none
	case placementpb.AuthAction_DISARM:
		if a.Enabled || a.ArmedAt != c.ArmedAt {
			return false, false, none
		}
		changed = a.Armed
		a.Armed, a.ArmedAt = false, 0
		return changed, false, none
	case placementpb.AuthAction_ENABLE:
		return a.enable(c)
	case placementpb.AuthAction_DISABLE:
		changed, counted = a.Enabled || a.Armed, a.Enabled
		a.Enabled, a.Armed, a.ArmedAt, a.TokenKey = false, false, 0, nil
		return changed, counted, none
	case placementpb.AuthAction_USER_ADD:
		why = a.addUser(c)
	case placementpb.AuthAction_USER_DELETE:
		why = a.deleteUser(c)
	case placementpb.AuthAction_USER_PASSWORD:
		why = a.changeUser(c.User, func(u *placementpb.User) placementpb.AuthRefusal {
			if !u.NoPassword {
				u.PasswordHash = c.PasswordHash
			}
			u.Credential = a.Revision + 1
			return none
		})
	case placementpb.AuthAction_USER_GRANT_ROLE:
		return a.grantRole(c)
	case placementpb.AuthAction_USER_REVOKE_ROLE:
		why = a.revokeRole(c)
	case placementpb.AuthAction_ROLE_ADD:
		why = a.addRole(c)
	case placementpb.AuthAction_ROLE_DELETE:
		why = a.deleteRole(c)
	case placementpb.AuthAction_ROLE_GRANT:
		why = a.grantPermission(c)
	case placementpb.AuthAction_ROLE_REVOKE:
		why = a.revokePermission(c)
	default:
		why = placementpb.AuthRefusal_INVALID_MANAGEMENT
	}
	return why == none, why == none, why
}

func (a *Auth) enable(c *placementpb.ChangeAuth) (changed, counted bool, why placementpb.AuthRefusal) {
	root := a.User(Root)
	switch {
	case a.Enabled:
		return false, false, placementpb.AuthRefusal_AUTH_REFUSAL_NONE
	case root == nil:
		return false, false, placementpb.AuthRefusal_ROOT_USER_MISSING
	case !IsRoot(root):
		return false, false, placementpb.AuthRefusal_ROOT_ROLE_MISSING
	case !a.Armed || c.ArmedAt != 0 && a.ArmedAt != c.ArmedAt || len(c.TokenKey) == 0: // disarmed meanwhile, or not proposed by a node
		return false, false, placementpb.AuthRefusal_INVALID_MANAGEMENT
	}
	a.Enabled, a.TokenKey = true, c.TokenKey
	return true, false, placementpb.AuthRefusal_AUTH_REFUSAL_NONE
}

func (a *Auth) addUser(c *placementpb.ChangeAuth) placementpb.AuthRefusal {
	i, found := findUser(a.users, c.User)
	switch {
	case c.User == "":
		return placementpb.AuthRefusal_USER_EMPTY
	case found:
		return placementpb.AuthRefusal_USER_EXISTS
	}
	u := &placementpb.User{Name: c.User, NoPassword: c.NoPassword, Credential: a.Revision + 1}
	if !c.NoPassword {
		u.PasswordHash = c.PasswordHash
	}
	a.users = slices.Insert(slices.Clone(a.users), i, u)
	return placementpb.AuthRefusal_AUTH_REFUSAL_NONE
}

func (a *Auth) deleteUser(c *placementpb.ChangeAuth) placementpb.AuthRefusal {
	i, found := findUser(a.users, c.User)
	switch {
	case a.Enabled && c.User == Root:
		return placementpb.AuthRefusal_INVALID_MANAGEMENT
	case !found:
		return placementpb.AuthRefusal_USER_MISSING
	}
	a.users = slices.Delete(slices.Clone(a.users), i, i+1)
	return placementpb.AuthRefusal_AUTH_REFUSAL_NONE
}

// changeUser replaces a user by a changed copy.
func (a *Auth) changeUser(name string, change func(*placementpb.User) placementpb.AuthRefusal) placementpb.AuthRefusal {
	i, found := findUser(a.users, name)
	if !found {
		return placementpb.AuthRefusal_USER_MISSING
	}
	next := copyUser(a.users[i])
	if why := change(next); why != placementpb.AuthRefusal_AUTH_REFUSAL_NONE {
		return why
	}
	a.users = slices.Clone(a.users)
	a.users[i] = next
	return placementpb.AuthRefusal_AUTH_REFUSAL_NONE
}

func copyUser(u *placementpb.User) *placementpb.User {
	return &placementpb.User{Name: u.Name, PasswordHash: u.PasswordHash, NoPassword: u.NoPassword, Roles: slices.Clone(u.Roles), Credential: u.Credential}
}

func (a *Auth) grantRole(c *placementpb.ChangeAuth) (changed, counted bool, why placementpb.AuthRefusal) {
	had := false
	why = a.changeUser(c.User, func(u *placementpb.User) placementpb.AuthRefusal {
		if c.Role != Root && a.Role(c.Role) == nil {
			return placementpb.AuthRefusal_ROLE_MISSING
		}
		if had = hasRole(u, c.Role); !had {
			u.Roles = append(u.Roles, c.Role)
			slices.Sort(u.Roles)
		}
		return placementpb.AuthRefusal_AUTH_REFUSAL_NONE
	})
	changed = why == placementpb.AuthRefusal_AUTH_REFUSAL_NONE && !had
	return changed, changed, why
}

func (a *Auth) revokeRole(c *placementpb.ChangeAuth) placementpb.AuthRefusal {
	if a.Enabled && c.User == Root && c.Role == Root {
		return placementpb.AuthRefusal_INVALID_MANAGEMENT
	}
	return a.changeUser(c.User, func(u *placementpb.User) placementpb.AuthRefusal {
		i, found := slices.BinarySearch(u.Roles, c.Role)
		if !found {
			return placementpb.AuthRefusal_ROLE_NOT_GRANTED
		}
		u.Roles = slices.Delete(u.Roles, i, i+1)
		return placementpb.AuthRefusal_AUTH_REFUSAL_NONE
	})
}

func (a *Auth) addRole(c *placementpb.ChangeAuth) placementpb.AuthRefusal {
	i, found := findRole(a.roles, c.Role)
	switch {
	case c.Role == "":
		return placementpb.AuthRefusal_ROLE_EMPTY
	case found:
		return placementpb.AuthRefusal_ROLE_EXISTS
	}
	a.roles = slices.Insert(slices.Clone(a.roles), i, &placementpb.Role{Name: c.Role})
	return placementpb.AuthRefusal_AUTH_REFUSAL_NONE
}

// deleteRole also takes it from all users.
func (a *Auth) deleteRole(c *placementpb.ChangeAuth) placementpb.AuthRefusal {
	i, found := findRole(a.roles, c.Role)
	switch {
	case a.Enabled && c.Role == Root:
		return placementpb.AuthRefusal_INVALID_MANAGEMENT
	case !found:
		return placementpb.AuthRefusal_ROLE_MISSING
	}
	a.roles = slices.Delete(slices.Clone(a.roles), i, i+1)
	a.users = slices.Clone(a.users)
	for i, u := range a.users {
		if hasRole(u, c.Role) {
			next := copyUser(u)
			next.Roles = slices.DeleteFunc(next.Roles, func(r string) bool { return r == c.Role })
			a.users[i] = next
		}
	}
	return placementpb.AuthRefusal_AUTH_REFUSAL_NONE
}

func (a *Auth) grantPermission(c *placementpb.ChangeAuth) placementpb.AuthRefusal {
	p := c.Permission
	switch {
	case p == nil:
		return placementpb.AuthRefusal_PERMISSION_MISSING
	case !validRange(p.Key, p.RangeEnd) || p.Access < placementpb.Access_READ || p.Access > placementpb.Access_READWRITE:
		return placementpb.AuthRefusal_INVALID_MANAGEMENT
	}
	return a.changeRole(c.Role, func(r *placementpb.Role) placementpb.AuthRefusal {
		i := slices.IndexFunc(r.Permissions, func(had *placementpb.Permission) bool { return sameRange(had, p) })
		if i >= 0 {
			r.Permissions[i] = p
			return placementpb.AuthRefusal_AUTH_REFUSAL_NONE
		}
		r.Permissions = append(r.Permissions, p)
		slices.SortStableFunc(r.Permissions, func(a, b *placementpb.Permission) int { return bytes.Compare(a.Key, b.Key) })
		return placementpb.AuthRefusal_AUTH_REFUSAL_NONE
	})
}

func (a *Auth) revokePermission(c *placementpb.ChangeAuth) placementpb.AuthRefusal {
	return a.changeRole(c.Role, func(r *placementpb.Role) placementpb.AuthRefusal {
		before := len(r.Permissions)
		r.Permissions = slices.DeleteFunc(r.Permissions, func(p *placementpb.Permission) bool { return sameRange(p, c.Permission) })
		if len(r.Permissions) == before {
			return placementpb.AuthRefusal_PERMISSION_NOT_GRANTED
		}
		return placementpb.AuthRefusal_AUTH_REFUSAL_NONE
	})
}

func sameRange(p, q *placementpb.Permission) bool {
	return bytes.Equal(p.GetKey(), q.GetKey()) && bytes.Equal(p.GetRangeEnd(), q.GetRangeEnd())
}

// changeRole replaces a role by a changed copy.
func (a *Auth) changeRole(name string, change func(*placementpb.Role) placementpb.AuthRefusal) placementpb.AuthRefusal {
	i, found := findRole(a.roles, name)
	if !found {
		return placementpb.AuthRefusal_ROLE_MISSING
	}
	next := &placementpb.Role{Name: name, Permissions: slices.Clone(a.roles[i].Permissions)}
	if why := change(next); why != placementpb.AuthRefusal_AUTH_REFUSAL_NONE {
		return why
	}
	a.roles = slices.Clone(a.roles)
	a.roles[i] = next
	return placementpb.AuthRefusal_AUTH_REFUSAL_NONE
}

// validRange reports whether a permission can be for the range, as in etcd.
func validRange(key, end []byte) bool {
	switch {
	case len(key) == 0:
		return false
	case len(end) == 0:
		return true
	}
	return bytes.Compare(key, end) < 0 || bytes.Equal(end, []byte{0})
}

// proto shares memory with a.
func (a *Auth) proto() *placementpb.Auth {
	return &placementpb.Auth{
		Version: a.Version, Revision: a.Revision, Enabled: a.Enabled, Armed: a.Armed, TokenKey: a.TokenKey, Users: a.users, Roles: a.roles, ArmedAt: a.ArmedAt,
	}
}

func authOf(p *placementpb.Auth) *Auth {
	return &Auth{Version: p.Version, Revision: p.Revision, Enabled: p.Enabled, Armed: p.Armed, TokenKey: p.TokenKey, users: p.Users, roles: p.Roles, ArmedAt: p.ArmedAt}
}

// auditAuth checks P11.
func (m *Map) auditAuth() error {
	if m.auth == nil {
		return nil
	}
	if m.auth.Version == 0 || m.auth.Version > m.version {
		return fmt.Errorf("P6: users and roles are from version %d of the map, which is at %d", m.auth.Version, m.version)
	}
	return m.auth.audit()
}

func (a *Auth) audit() error {
	switch {
	case a.Revision == 0:
		return errors.New("P11: the revision of users and roles is 0")
	case a.Enabled && (!a.Armed || len(a.TokenKey) == 0 || !IsRoot(a.User(Root))):
		return errors.New("P11: authentication is enabled without a key, without a root user, or unannounced")
	case !a.Armed && a.ArmedAt > 0 || a.ArmedAt > a.Version:
		return errors.New("P11: what armed authentication is not known")
	case slices.Contains(a.users, nil) || slices.Contains(a.roles, nil):
		return errors.New("P11: a user or role is without content")
	}
	for i, u := range a.users {
		if u.Name == "" || i > 0 && a.users[i-1].Name >= u.Name || !slices.IsSorted(u.Roles) || u.Credential > a.Revision {
			return fmt.Errorf("P11: user %q is out of order, has roles that are, or a password from the future", u.Name)
		}
		for _, r := range u.Roles {
			if r != Root && a.Role(r) == nil {
				return fmt.Errorf("P11: user %q has role %q, which does not exist", u.Name, r)
			}
		}
	}
	for i, r := range a.roles {
		if r.Name == "" || i > 0 && a.roles[i-1].Name >= r.Name {
			return fmt.Errorf("P11: role %q is out of order", r.Name)
		}
		for _, p := range r.Permissions {
			if p == nil || !validRange(p.Key, p.RangeEnd) {
				return fmt.Errorf("P11: role %q has a permission for no range", r.Name)
			}
		}
	}
	return nil
}
