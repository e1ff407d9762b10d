package etcdapi

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// maintenanceServer is etcd's Maintenance service.
type maintenanceServer struct {
	pb.UnsafeMaintenanceServer
	*Server
}

// Status reports this member's state.
func (s *maintenanceServer) Status(ctx context.Context, _ *pb.StatusRequest) (*pb.StatusResponse, error) {
	st, err := s.cluster.Status(ctx)
	if err != nil {
		return nil, readError(ctx, err)
	}
	resp := &pb.StatusResponse{
		Header:           s.header(s.cluster.Revision()),
		Version:          etcdVersion(),
		StorageVersion:   clusterVersion(),
		Leader:           st.Leader,
		RaftTerm:         s.cluster.RaftTerm(),
		RaftIndex:        st.RaftIndex,
		RaftAppliedIndex: st.RaftAppliedIndex,
		DbSize:           st.DBBytes,
		DbSizeInUse:      st.DBInUseBytes,
		DowngradeInfo:    &pb.DowngradeInfo{},
		Errors:           st.Errors,
	}
	if st.Leader == 0 {
		resp.Errors = append(resp.Errors, rpctypes.ErrorDesc(rpctypes.ErrGRPCNoLeader))
	}
	for _, a := range s.cluster.Alarms() {
		resp.Errors = append(resp.Errors, a.String())
	}
	return resp, nil
}

// Alarm lists, raises or clears alarms. The response contains the alarms concerned.
func (s *maintenanceServer) Alarm(ctx context.Context, req *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	alarm := &pb.AlarmMember{MemberID: req.MemberID, Alarm: req.Alarm}
	resp := &pb.AlarmResponse{}
	switch req.Action {
	case pb.AlarmRequest_GET:
		for _, a := range s.cluster.Alarms() {
			if req.Alarm == pb.AlarmType_NONE || req.Alarm == a.Alarm {
				resp.Alarms = append(resp.Alarms, a)
			}
		}
	case pb.AlarmRequest_ACTIVATE:
		if req.Alarm == pb.AlarmType_NONE {
			break // raises nothing, and is no fault
		}
		if err := s.cluster.RaiseAlarm(ctx, alarm); err != nil {
			return nil, writeError(err)
		}
		resp.Alarms = append(resp.Alarms, alarm)
	case pb.AlarmRequest_DEACTIVATE:
		if req.Alarm == pb.AlarmType_NONE {
			break
		}
		raised, err := s.cluster.ClearAlarm(ctx, alarm)
		if err != nil {
			return nil, writeError(err)
		}
		if raised {
			resp.Alarms = append(resp.Alarms, alarm)
		}
	default:
		return nil, status.Errorf(codes.InvalidArgument, "flotilla: alarm action %d does not exist", req.Action)
	}
	resp.Header = s.header(s.cluster.Revision())
	return resp, nil
}

// Defragment succeeds and does nothing: the store frees disk space automatically, and scripts that
// defragment every member in turn must not fail. Like etcd's, the response has no header.
func (s *maintenanceServer) Defragment(context.Context, *pb.DefragmentRequest) (*pb.DefragmentResponse, error) {
	return &pb.DefragmentResponse{}, nil
}

// Hash hashes the latest state. etcd hashes its file here, which nobody compares any more.
func (s *maintenanceServer) Hash(ctx context.Context, _ *pb.HashRequest) (*pb.HashResponse, error) {
	resp, err := s.HashKV(ctx, &pb.HashKVRequest{})
	if err != nil {
		return nil, err
	}
	return &pb.HashResponse{Header: resp.Header, Hash: resp.Hash}, nil
}

// HashKV hashes this member's copy of the keyspace at a revision. Members that answer differently
// for one revision hold different data.
func (s *maintenanceServer) HashKV(ctx context.Context, req *pb.HashKVRequest) (*pb.HashKVResponse, error) {
	resp, err := s.kv.HashKV(ctx, req)
	if err != nil {
		return nil, readError(ctx, err)
	}
	s.fill(resp.Header)
	return resp, nil
}

// MoveLeader concerns the meta group, whose leader Status reports. Any member accepts it, whereas
// etcd's accept it only when they lead.
func (s *maintenanceServer) MoveLeader(ctx context.Context, req *pb.MoveLeaderRequest) (*pb.MoveLeaderResponse, error) {
	if err := s.cluster.MoveLeader(ctx, req.TargetID); err != nil {
		return nil, writeError(err)
	}
	return &pb.MoveLeaderResponse{Header: s.header(s.cluster.Revision())}, nil
}

func (s *maintenanceServer) Downgrade(context.Context, *pb.DowngradeRequest) (*pb.DowngradeResponse, error) {
	return nil, unimplemented("Maintenance.Downgrade")
}
