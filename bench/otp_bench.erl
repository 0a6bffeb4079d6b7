%% The same rows under an OTP supervisor: 89 children that only wait.
%%   erl -noshell -pa DIR -s otp_bench measure      prints one JSON object, times in microseconds
%%   erl -noshell -pa DIR -s otp_bench idle         says "up", then waits to be measured from outside
-module(otp_bench).
-behaviour(supervisor).
-export([measure/0, idle/0, init/1, start_child/1, child/1]).

-define(CHILDREN, 89).
-define(ROUNDS, 50).
-define(CRASHES, 500).

%% The period is short, so that the list of restarts that OTP keeps within it stays short.
init(Home) ->
    Child = #{id => child, start => {?MODULE, start_child, [Home]},
              restart => permanent, shutdown => brutal_kill},
    {ok, {#{strategy => simple_one_for_one, intensity => 1000000, period => 1}, [Child]}}.

start_child(Home) -> {ok, spawn_link(?MODULE, child, [Home])}.

child(Home) ->
    Home ! {up, self(), erlang:monotonic_time()},
    receive after infinity -> ok end.

start() ->
    %% Reports of crashes would be most of the time measured.
    logger:set_primary_config(level, none),
    Began = erlang:monotonic_time(),
    {ok, Supervisor} = supervisor:start_link(?MODULE, self()),
    [{ok, _} = supervisor:start_child(Supervisor, []) || _ <- lists:seq(1, ?CHILDREN)],
    Ups = [receive {up, Pid, At} -> {At, Pid} end || _ <- lists:seq(1, ?CHILDREN)],
    {Supervisor, [Pid || {_, Pid} <- Ups], lists:max([At || {At, _} <- Ups]) - Began}.

stop(Supervisor) ->
    Began = erlang:monotonic_time(),
    Watch = monitor(process, Supervisor),
    exit(Supervisor, shutdown),
    receive {'DOWN', Watch, process, Supervisor, _} -> ok end,
    erlang:monotonic_time() - Began.

crash(Pid) ->
    Began = erlang:monotonic_time(),
    exit(Pid, kill),
    receive {up, Next, At} -> {Next, At - Began} end.

crashes(0, _, Times) -> Times;
crashes(Left, Pid, Times) ->
    {Next, Time} = crash(Pid),
    crashes(Left - 1, Next, [Time | Times]).

measure() ->
    process_flag(trap_exit, true),
    Rounds = [begin
                  {Supervisor, _, Start} = start(),
                  {Start, stop(Supervisor)}
              end || _ <- lists:seq(1, ?ROUNDS)],
    {Supervisor, [Pid | _], _} = start(),
    Crashes = crashes(?CRASHES, Pid, []),
    stop(Supervisor),
    io:format("{\"start_89_us\":~s,\"stop_89_us\":~s,\"crash_to_running_us\":~s}~n",
              [json([S || {S, _} <- Rounds]), json([S || {_, S} <- Rounds]), json(Crashes)]),
    init:stop().

idle() ->
    start(),
    io:format("up~n"),
    timer:sleep(300000),
    init:stop().

json(Times) ->
    Micros = [float_to_list(erlang:convert_time_unit(T, native, nanosecond) / 1000, [{decimals, 1}])
              || T <- Times],
    ["[", lists:join(",", Micros), "]"].
